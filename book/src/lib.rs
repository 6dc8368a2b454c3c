//! The book's tool: it builds the pages with mdBook, serves them with the HTTP server of
//! chapter 3, and checks what they say against the programs.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;

pub mod includes;
pub mod markup;
pub mod render;
pub mod serve;
pub mod source;
#[cfg(target_os = "linux")]
pub mod transcript;

/// Something in a source that must be mended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, below the root of the repository.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// The root of the repository that this crate was built in.
#[must_use]
pub fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the crate lies in the workspace").to_path_buf()
}

/// Checks all that can be seen without running a program: markup, includes, captions.
///
/// # Errors
/// When a source cannot be read.
pub fn check_sources(root: &Path) -> Result<Vec<Problem>> {
    let source = source::Source::read(root)?;
    let mut problems = markup::check(&source)?;
    problems.extend(includes::check(&source)?);
    problems.sort();
    Ok(problems)
}

/// The Rust snippets of the pages are this crate's documentation tests.
#[cfg(doctest)]
mod snippets {
    include!(concat!(env!("OUT_DIR"), "/snippets.rs"));
}
