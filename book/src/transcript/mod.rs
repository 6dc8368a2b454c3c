//! The transcripts of the pages: played for real, compared, and recorded anew on demand.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regex::Regex;

use crate::Problem;
use crate::source::{Page, Source};

mod compare;
pub mod scene;
mod terminal;

use compare::Names;
use scene::{Block, Key, Line, Scene};
use terminal::Terminal;

/// How long a line of output may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a recording takes for the end of an output. Only a recording: a comparison knows
/// what it waits for.
const QUIET: Duration = Duration::from_millis(800);

/// Tools that a machine may lack. (bash, coreutils and cargo it has.)
const TOOLS: [&str; 11] = [
    "curl", "gdb", "ip", "kill", "lsof", "nc", "ps", "python3", "ss", "strace", "unshare",
];

/// Why the transcripts cannot be played here, if so.
///
/// Each scene has a network of its own, in which the handbook's ports are free. For that the
/// process must be root; if it is not, it becomes root in a user namespace of its own, which
/// only works before it has threads.
///
/// # Errors
/// With the reason.
#[cfg(target_os = "linux")]
pub fn prepare() -> Result<()> {
    use nix::sched::{CloneFlags, unshare};

    for tool in ["bash", "ip"] {
        ensure!(is_installed(tool), "{tool} is not installed");
    }
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    if !user.is_root() {
        unshare(CloneFlags::CLONE_NEWUSER).context("this user may not have namespaces")?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    }
    // In a thread, as all of it is for that thread alone.
    let tried = std::thread::spawn(isolate).join();
    tried.unwrap_or_else(|_| anyhow::bail!("the trial of a namespace panicked"))
}

/// Elsewhere there are no network namespaces, and another strace.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn prepare() -> Result<()> {
    anyhow::bail!("the transcripts were recorded on Linux")
}

/// Gives the calling thread, and what it starts, a network of its own.
#[cfg(target_os = "linux")]
fn isolate() -> Result<()> {
    use nix::sched::{CloneFlags, unshare};

    unshare(CloneFlags::CLONE_NEWNET).context("no network namespace of our own")?;
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .output()?;
    ensure!(
        up.status.success(),
        "cannot bring up the loopback interface"
    );
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn isolate() -> Result<()> {
    Ok(())
}

fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

/// A tool that a scene needs, and this machine lacks.
#[must_use]
pub fn missing_tool(scene: &Scene) -> Option<&'static str> {
    let uses = |tool: &&str| {
        let mut words = scene
            .commands()
            .flat_map(|command| command.split(|it: char| !(it.is_alphanumeric() || it == '_')));
        words.any(|word| word == *tool)
    };
    TOOLS
        .into_iter()
        .filter(uses)
        .find(|tool| !is_installed(tool) && *tool != "kill")
}

/// Builds what the scenes run, each package as `cargo run -p` does, so that no scene waits
/// for a compiler.
///
/// # Errors
/// When a build fails; cargo has said why by then.
pub fn build_programs(root: &Path, scenes: &[Scene]) -> Result<()> {
    static PACKAGE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"cargo (?:(grade)|run.*? -p ([\w-]+))").expect("valid"));
    let commands = scenes.iter().flat_map(Scene::commands);
    let mut packages: Vec<&str> = commands
        .filter_map(|command| PACKAGE.captures(command))
        .filter_map(|found| Some(found.get(1).or(found.get(2))?.as_str()))
        .collect();
    packages.sort_unstable();
    packages.dedup();
    for package in packages {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--bins",
                "--examples",
                "--package",
                package,
            ])
            .current_dir(root)
            .status()
            .context("cannot run cargo")?;
        ensure!(built.success(), "cannot build {package}");
    }
    Ok(())
}

/// The terminals of a scene.
struct Stage<'a> {
    scene: &'a Scene<'a>,
    terminals: BTreeMap<&'a str, Seat>,
    names: Names,
}

/// A terminal, and what was read of it.
struct Seat {
    terminal: Terminal,
    /// The page leaves out what comes now.
    elided: bool,
    /// The last command.
    command: String,
    /// A key was pressed. When that has ended a program, the shell may begin a new line.
    after_key: bool,
}

impl<'a> Stage<'a> {
    fn set(scene: &'a Scene<'a>, root: &'a Path) -> Result<Stage<'a>> {
        isolate()?;
        let mut terminals = BTreeMap::new();
        for block in &scene.blocks {
            if !terminals.contains_key(block.role.as_str()) {
                let seat = Seat {
                    terminal: Terminal::open(root)?,
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
    for block in scene.blocks.iter().rev() {
        let Some(seat) = stage.terminals.remove(block.role.as_str()) else {
            continue;
        };
        if let Some(line) = seat.unshown() {
            let offset = block
                .lines
                .last()
                .map_or(block.body.start, |(offset, _)| *offset);
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
    fn is_of_key(&self, line: &str) -> bool {
        self.after_key && line.is_empty()
    }

    fn press(&mut self, key: Key) -> std::io::Result<()> {
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

/// A block of a page, and its new text.
type Change = (Range<usize>, String);

/// Plays a scene and writes down what it prints: the page's text with new blocks, where
/// they differ.
///
/// # Errors
/// When the terminals cannot be had, or a command does not end.
pub fn record(scene: &Scene, root: &Path) -> Result<Vec<Change>> {
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
            let quiet = if expects_output && last == start {
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
#[must_use]
pub fn rewritten(page: &Page, mut changes: Vec<Change>) -> String {
    changes.sort_by_key(|(range, _)| range.start);
    let mut text = page.text.clone();
    for (range, block) in changes.into_iter().rev() {
        text.replace_range(range, &block);
    }
    text
}

/// What became of all transcripts.
#[derive(Debug, Default)]
pub struct Report {
    /// How many scenes were played.
    pub played: usize,
    /// Those that were not, with the reason.
    pub skipped: Vec<String>,
    /// Where a page and its run differ.
    pub problems: Vec<Problem>,
}

/// Scenes mostly wait, so there may be more of them than processors.
const AT_ONCE: usize = 6;

/// Plays the transcripts of all pages with `only` in their path.
///
/// # Errors
/// When the pages cannot be read, or their programs not built.
pub fn compare_all(root: &Path, only: &str) -> Result<Report> {
    let source = Source::read(root)?;
    let scenes = scenes(&source, only);
    build_programs(root, &scenes)?;
    let report = Mutex::new(Report::default());
    each(&scenes, |scene| {
        let found = match missing_tool(scene) {
            Some(tool) => Err(format!("{}: {tool} is not installed", place(scene))),
            None => Ok(compare(scene, root)),
        };
        let mut report = lock(&report);
        match found {
            Err(reason) => report.skipped.push(reason),
            Ok(found) => {
                report.played += 1;
                report.problems.extend(found?);
            }
        }
        Ok(())
    })?;
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.problems.sort();
    Ok(report)
}

/// Records the transcripts anew where they differ, and returns the pages that changed.
///
/// # Errors
/// When a scene cannot be played to its end.
pub fn bless(root: &Path, only: &str) -> Result<Vec<PathBuf>> {
    let source = Source::read(root)?;
    let scenes = scenes(&source, only);
    build_programs(root, &scenes)?;
    let changes = Mutex::new(BTreeMap::<PathBuf, Vec<Change>>::new());
    each(&scenes, |scene| {
        // A page that is right stays as it is, ports and all.
        if missing_tool(scene).is_some() || compare(scene, root)?.is_none() {
            return Ok(());
        }
        let recorded = record(scene, root)?;
        let mut changes = lock(&changes);
        changes
            .entry(scene.page.path.clone())
            .or_default()
            .extend(recorded);
        Ok(())
    })?;
    let changes = changes.into_inner().unwrap_or_else(PoisonError::into_inner);
    for page in &source.pages {
        if let Some(changes) = changes.get(&page.path) {
            fs::write(root.join(&page.path), rewritten(page, changes.clone()))?;
        }
    }
    Ok(changes.into_keys().collect())
}

/// The scenes of all pages with `only` in their path.
#[must_use]
pub fn scenes<'a>(source: &'a Source, only: &str) -> Vec<Scene<'a>> {
    let pages = source.pages.iter();
    let chosen = pages.filter(|page| page.path.to_string_lossy().contains(only));
    chosen.flat_map(Scene::of).collect()
}

/// Where a scene begins: `book/en/ch01-echo/bytes.md:41`.
#[must_use]
pub fn place(scene: &Scene) -> String {
    let (path, line) = (scene.page.path.display(), scene.page.line(scene.start()));
    format!("{path}:{line}")
}

/// Does the same for all scenes, some at a time.
fn each(scenes: &[Scene], job: impl Fn(&Scene) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let worker = || {
            while let Some(scene) = scenes.get(next.fetch_add(1, SeqCst)) {
                job(scene).with_context(|| place(scene))?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|it| {
            it.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
