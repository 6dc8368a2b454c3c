//! Writes a page's transcripts anew.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::PATIENCE;
use super::compare::Names;
use super::play::{Seat, Stage};
use super::scene::{Block, Line, Scene};
use crate::source::Page;

/// What a recording takes for the end of an output. Only a recording: a comparison knows
/// what it waits for.
const QUIET: Duration = Duration::from_millis(800);

/// A block of a page, and its new text.
pub(super) type Change = (Range<usize>, String);

/// Plays a scene and writes down what it prints: the page's text with new blocks, where
/// they differ.
///
/// # Errors
/// When the terminals cannot be had, or a command does not end.
pub(super) fn record(scene: &Scene, root: &Path) -> Result<Vec<Change>> {
    let mut stage = Stage::set(scene, root)?;
    let mut recorded: Vec<Vec<Line>> = Vec::new();
    for block in &scene.blocks {
        let lines = stage.record(block, &mut recorded)?;
        recorded.push(lines);
    }
    stage.settle(false);
    stage.late(&mut recorded);
    let mut changes = Vec::new();
    for (block, lines) in scene.blocks.iter().zip(&recorded) {
        let mut text = String::new();
        for line in lines {
            text += &line.show();
            text.push('\n');
        }
        if text != scene.page.text[block.body.clone()] {
            changes.push((block.body.clone(), text));
        }
    }
    Ok(changes)
}

impl Stage<'_> {
    /// Plays a block. What comes too late for the one before is added to it.
    fn record(&mut self, block: &Block, before: &mut [Vec<Line>]) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        let mut shown: Vec<&Line> = Vec::new();
        for (offset, line) in &block.lines {
            if !line.is_typed() {
                shown.push(line);
                continue;
            }
            if lines.is_empty() && shown.is_empty() {
                self.late(before);
            } else {
                let ends = matches!(line, Line::Command(_));
                self.printed(block, &shown, ends, &mut lines);
            }
            shown.clear();
            let seat = self
                .terminals
                .get_mut(block.role.as_str())
                .context("no such terminal")?;
            match line {
                Line::Command(command) => {
                    let deadline = Instant::now() + PATIENCE;
                    seat.command.clone_from(command);
                    seat.after_key = false;
                    let typed = self.names.translate(command);
                    ensure!(
                        seat.terminal.prompt(deadline),
                        "{}",
                        self.scene.page.problem(
                            *offset,
                            format!("the terminal is busy: {:?}", seat.terminal.rest())
                        )
                    );
                    seat.terminal.type_keys(&format!("{typed}\n"))?;
                    seat.terminal.line(deadline);
                }
                Line::Input(text) => {
                    let typed = self.names.translate(text);
                    seat.terminal.type_keys(&format!("{typed}\n"))?;
                    seat.terminal.line(Instant::now() + PATIENCE);
                }
                Line::Key(key) => seat.press(*key)?,
                Line::Output(_) | Line::Ellipsis => {}
            }
            lines.push(line.clone());
        }
        self.printed(block, &shown, false, &mut lines);
        Ok(lines)
    }

    /// Adds what the terminal printed since something was typed, up to the next prompt if the
    /// program `ends`; in the page's own words where these still are true.
    fn printed(&mut self, block: &Block, shown: &[&Line], ends: bool, lines: &mut Vec<Line>) {
        if ends && let Some(seat) = self.terminals.get(block.role.as_str()) {
            seat.terminal.wait_for_prompt(Instant::now() + PATIENCE);
        }
        self.settle(shown.iter().any(|it| matches!(it, Line::Output(_))));
        let Some(seat) = self.terminals.get_mut(block.role.as_str()) else {
            return;
        };
        let came = seat.lines();
        if let Some(names) = fits(shown, &came, &self.names, &seat.command) {
            self.names = names;
            lines.extend(shown.iter().copied().cloned());
            return;
        }
        for line in came {
            let known = shown.iter().find(|it| match it {
                Line::Output(text) => self.names.same(text, &line, &seat.command),
                _ => false,
            });
            lines.push(known.map_or(Line::Output(line), |it| (*it).clone()));
        }
    }

    /// What has come after its block was over: it belongs to the terminal's last block.
    fn late(&mut self, before: &mut [Vec<Line>]) {
        for (block, lines) in self.scene.blocks.iter().zip(before.iter_mut()).rev() {
            if let Some(seat) = self.terminals.get_mut(block.role.as_str())
                && !matches!(lines.last(), Some(Line::Ellipsis))
            {
                lines.extend(seat.lines().into_iter().map(Line::Output));
            }
        }
    }

    /// Waits until nothing has appeared anywhere for a while.
    fn settle(&self, expects_output: bool) {
        let start = Instant::now();
        loop {
            let changes = self
                .terminals
                .values()
                .filter_map(|it| it.terminal.last_change());
            let last = changes.max().unwrap_or(start).max(start);
            let silent = self
                .terminals
                .values()
                .all(|it| it.terminal.rest().is_empty());
            let quiet = if expects_output && silent {
                8 * QUIET
            } else {
                QUIET
            };
            let left = (last + quiet).saturating_duration_since(Instant::now());
            if left.is_zero() || start.elapsed() > PATIENCE {
                return;
            }
            std::thread::sleep(left);
        }
    }
}

impl Seat {
    /// Takes all lines, and leaves a prompt.
    fn lines(&self) -> Vec<String> {
        let now = Instant::now();
        let whole = std::iter::from_fn(|| self.terminal.line(now));
        let mut lines: Vec<String> = whole.filter(|line| !self.is_of_key(line)).collect();
        lines.extend(self.terminal.unfinished(now, |text| !text.is_empty()));
        lines
    }
}

/// The names after comparing what the page shows with what came, if these are the same.
fn fits(shown: &[&Line], came: &[String], names: &Names, command: &str) -> Option<Names> {
    let mut names = names.clone();
    let mut came = came.iter();
    let mut elided = false;
    for line in shown {
        match line {
            Line::Ellipsis => elided = true,
            Line::Output(text) => loop {
                if names.same(text, came.next()?, command) {
                    elided = false;
                    break;
                } else if !elided {
                    return None;
                }
            },
            _ => {}
        }
    }
    (elided || came.next().is_none()).then_some(names)
}

/// The text of a page with some of its blocks changed.
pub(super) fn rewritten(page: &Page, mut changes: Vec<Change>) -> String {
    changes.sort_by_key(|(range, _)| range.start);
    let mut text = page.text.clone();
    for (range, block) in changes.into_iter().rev() {
        text.replace_range(range, &block);
    }
    text
}
