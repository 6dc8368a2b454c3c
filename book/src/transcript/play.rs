//! Plays a scene, and compares what comes with what the page shows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::PATIENCE;
use super::compare::Names;
use super::sandbox::Sandbox;
use super::scene::{Key, Line, Scene};
use super::terminal::Terminal;
use crate::Problem;

/// The terminals of a scene.
pub(super) struct Stage<'a> {
    pub(super) scene: &'a Scene<'a>,
    pub(super) terminals: BTreeMap<&'a str, Seat>,
    pub(super) names: Names,
    /// Dropped after the terminals, which are inside.
    _sandbox: Sandbox,
}

/// A terminal, and what was read of it.
pub(super) struct Seat {
    pub(super) terminal: Terminal,
    /// The page leaves out what comes now.
    elided: bool,
    /// The last command.
    pub(super) command: String,
    /// A key was pressed. When that has ended a program, the shell may begin a new line.
    pub(super) after_key: bool,
}

impl<'a> Stage<'a> {
    pub(super) fn set(scene: &'a Scene<'a>, root: &'a Path) -> Result<Stage<'a>> {
        let sandbox = Sandbox::open(root)?;
        let mut terminals = BTreeMap::new();
        for block in &scene.blocks {
            if !terminals.contains_key(block.role.as_str()) {
                let seat = Seat {
                    terminal: Terminal::open(&sandbox)?,
                    elided: false,
                    command: String::new(),
                    after_key: false,
                };
                terminals.insert(block.role.as_str(), seat);
            }
        }
        Ok(Stage {
            scene,
            terminals,
            names: Names::default(),
            _sandbox: sandbox,
        })
    }
}

/// Plays a scene and compares each line with the page.
///
/// # Errors
/// When the terminals cannot be had.
pub fn compare(scene: &Scene, root: &Path) -> Result<Option<Problem>> {
    let mut stage = Stage::set(scene, root)?;
    for block in &scene.blocks {
        let seat = stage
            .terminals
            .get_mut(block.role.as_str())
            .expect("set above");
        for (offset, line) in &block.lines {
            if let Err(what) = seat.follow(line, &mut stage.names) {
                return Ok(Some(scene.page.problem(*offset, what)));
            }
        }
    }
    for (role, seat) in &stage.terminals {
        let last_block = scene.blocks.iter().rfind(|block| block.role == *role);
        if let (Some(line), Some(block)) = (seat.unshown(), last_block) {
            let last = block.lines.last();
            let offset = last.map_or(block.body.start, |(offset, _)| *offset);
            let what = format!("after this the run printed {line:?}, which the page does not show");
            return Ok(Some(scene.page.problem(offset, what)));
        }
    }
    Ok(None)
}

impl Seat {
    /// Does what the page says was typed, or waits for what it says was printed.
    fn follow(&mut self, line: &Line, names: &mut Names) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let typing = |error: std::io::Error| format!("cannot type: {error}");
        match line {
            Line::Ellipsis => self.elided = true,
            Line::Command(command) => {
                while !self.terminal.prompt(deadline) {
                    let Some(line) = self.terminal.line(deadline) else {
                        return Err(format!(
                            "the terminal is busy; it shows {:?}",
                            self.terminal.rest()
                        ));
                    };
                    if !self.elided && !self.is_of_key(&line) {
                        return Err(format!("before this the run printed {line:?}"));
                    }
                }
                (self.elided, self.after_key) = (false, false);
                self.command.clone_from(command);
                let command = names.translate(command);
                self.terminal
                    .type_keys(&format!("{command}\n"))
                    .map_err(typing)?;
                self.echo(&command, deadline)?;
            }
            Line::Input(text) => {
                let text = names.translate(text);
                self.terminal
                    .type_keys(&format!("{text}\n"))
                    .map_err(typing)?;
                self.echo(&text, deadline)?;
            }
            Line::Key(key) => self.press(*key).map_err(typing)?,
            Line::Output(text) => self.expect(text, names, deadline)?,
        }
        Ok(())
    }

    fn echo(&mut self, typed: &str, deadline: Instant) -> Result<(), String> {
        loop {
            match self.terminal.line(deadline) {
                Some(line) if line == typed => return Ok(()),
                Some(_) if self.elided => {}
                Some(line) => return Err(format!("before this the run printed {line:?}")),
                None => return Err("the terminal does not answer".to_string()),
            }
        }
    }

    fn expect(&mut self, shown: &str, names: &mut Names, deadline: Instant) -> Result<(), String> {
        loop {
            let known = names.clone();
            let unfinished = self.terminal.unfinished(deadline, |came| {
                !came.is_empty() && known.clone().same(shown, came, &self.command)
            });
            let Some(line) = unfinished.or_else(|| self.terminal.line(deadline)) else {
                let rest = self.terminal.rest();
                return Err(format!(
                    "the page shows {shown:?}, which did not come; the terminal shows {rest:?}"
                ));
            };
            if names.same(shown, &line, &self.command) {
                break;
            }
            if !self.elided && !self.is_of_key(&line) {
                return Err(format!(
                    "the page shows {shown:?}, the run printed {line:?}"
                ));
            }
        }
        self.elided = false;
        Ok(())
    }

    /// Whether this is the new line after a key.
    pub(super) fn is_of_key(&self, line: &str) -> bool {
        self.after_key && line.is_empty()
    }

    pub(super) fn press(&mut self, key: Key) -> std::io::Result<()> {
        self.after_key = true;
        match key {
            Key::End => self.terminal.type_keys(key.code()), // which is not echoed
            _ => self.terminal.press(key.code(), key.name()),
        }
    }

    /// A line that the page should show, too.
    fn unshown(&self) -> Option<String> {
        let now = Instant::now();
        let mut lines = std::iter::from_fn(|| self.terminal.line(now));
        lines.find(|line| !self.elided && !self.is_of_key(line))
    }
}
