//! The transcripts of the pages: played for real, compared, and recorded anew on demand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regex::Regex;

use crate::Problem;
use crate::source::Source;

mod compare;
mod play;
mod record;
mod sandbox;
pub mod scene;
mod terminal;

pub use play::compare;
use record::Change;
use sandbox::Sandbox;
use scene::Scene;

/// How long a line of output may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tools that a machine may lack. (It has a shell with the usual tools, and cargo.)
const TOOLS: [&str; 7] = ["curl", "lsof", "nc", "pgrep", "ps", "ss", "strace"];

/// Whether the transcripts can be played here, and if not, why.
///
/// # Errors
/// With the reason: a missing tool, no permission to make namespaces.
pub fn possible() -> Result<()> {
    for tool in ["bash", "ip", "unshare", "nsenter"] {
        ensure!(is_installed(tool), "{tool} is not installed");
    }
    Sandbox::open(Path::new("/")).map(drop)
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
    TOOLS.into_iter().filter(uses).find(|it| !is_installed(it))
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
const AT_ONCE: usize = 10;

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
        let recorded = record::record(scene, root)?;
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
            fs::write(
                root.join(&page.path),
                record::rewritten(page, changes.clone()),
            )?;
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
