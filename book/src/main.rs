//! `cargo run -p book`: builds the book, serves it, and checks it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use book::source::Source;
use book::{Problem, includes, render, serve};
use clap::{Parser, Subcommand};

/// Builds the book and serves it, with chapter 3's HTTP server
#[derive(Parser)]
#[command(name = "book", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Where to serve it; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:3000")]
    address: String,
    /// The repository whose book it is; the tests have small ones
    #[arg(long, value_name = "FOLDER", hide = true, global = true)]
    repository: Option<PathBuf>,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Builds the pages, and prints where they are
    Build,
    /// Checks links, listings, figures, terms and transcripts against the programs
    Check {
        /// Only pages whose path contains this
        #[arg(long, value_name = "TEXT", default_value = "")]
        only: String,
    },
    /// Plays the transcripts and compares them with the pages
    Transcripts {
        /// Rewrites what differs
        #[arg(long)]
        bless: bool,
        /// Only pages whose path contains this
        #[arg(long, value_name = "TEXT", default_value = "")]
        only: String,
    },
    /// Writes above each piece of code where it stands: its file and lines
    Captions,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let root = arguments.repository.unwrap_or_else(book::repository);
    match arguments.task {
        None => serve::serve(&root, &arguments.address),
        Some(Task::Build) => {
            let to = serve::destination(&root);
            render::build(&root, &to)?;
            writeln!(io::stdout(), "{}", to.join("index.html").display())?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Task::Check { only }) => {
            require_page(&root, &only)?;
            check(&root, &only)
        }
        Some(Task::Transcripts { bless, only }) => {
            require_page(&root, &only)?;
            transcripts(&root, bless, &only)
        }
        Some(Task::Captions) => captions(&root),
    }
}

/// A check of nothing would find nothing wrong.
fn require_page(root: &Path, only: &str) -> Result<()> {
    let pages = Source::read(root)?.pages;
    let found = pages
        .iter()
        .any(|it| it.path.to_string_lossy().contains(only));
    ensure!(found, "no page has {only:?} in its path");
    Ok(())
}

/// All checks: first those that only read, then the rendering, then the transcripts.
fn check(root: &Path, only: &str) -> Result<ExitCode> {
    let mut problems = book::check_sources(root)?;
    problems.retain(|it| it.file.to_string_lossy().contains(only));
    let to = tempfile::tempdir()?;
    if let Err(error) = render::build(root, to.path()) {
        problems.push(Problem {
            file: "book/book.toml".into(),
            line: 1,
            what: format!("{error:#}"),
        });
    }
    problems.extend(played(root, only)?);
    tell(&problems)
}

fn transcripts(root: &Path, bless: bool, only: &str) -> Result<ExitCode> {
    if !bless {
        return tell(&played(root, only)?);
    }
    for path in recorded(root, only)? {
        writeln!(io::stdout(), "{}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(target_os = "linux")]
fn recorded(root: &Path, only: &str) -> Result<Vec<PathBuf>> {
    book::transcript::possible().context("the transcripts cannot be played here")?;
    book::transcript::bless(root, only)
}

#[cfg(not(target_os = "linux"))]
fn recorded(_: &Path, _: &str) -> Result<Vec<PathBuf>> {
    anyhow::bail!("the transcripts are recorded on Linux")
}

#[cfg(target_os = "linux")]
fn played(root: &Path, only: &str) -> Result<Vec<Problem>> {
    if let Err(reason) = book::transcript::possible() {
        writeln!(io::stderr(), "The transcripts are skipped: {reason:#}")?;
        return Ok(Vec::new());
    }
    let report = book::transcript::compare_all(root, only)?;
    for reason in &report.skipped {
        writeln!(io::stderr(), "skipped: {reason}")?;
    }
    writeln!(io::stdout(), "{} transcripts played", report.played)?;
    Ok(report.problems)
}

#[cfg(not(target_os = "linux"))]
fn played(_: &Path, _: &str) -> Result<Vec<Problem>> {
    let reason = "they are recorded on Linux";
    writeln!(io::stderr(), "The transcripts are skipped: {reason}")?;
    Ok(Vec::new())
}

fn tell(problems: &[Problem]) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    for problem in problems {
        writeln!(out, "{problem}")?;
    }
    if problems.is_empty() {
        writeln!(out, "The book is right.")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{} problems", problems.len())?;
    Ok(ExitCode::FAILURE)
}

fn captions(root: &Path) -> Result<ExitCode> {
    for page in Source::read(root)?.pages {
        let text = includes::with_captions(&page, root)?;
        if text != page.text {
            fs::write(root.join(&page.path), text)?;
            writeln!(io::stdout(), "{}", page.path.display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
