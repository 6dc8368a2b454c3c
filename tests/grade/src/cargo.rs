//! Builds the programs of the chapters, and tells where cargo put them.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// What to build.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// All binaries and examples of the workspace.
    Everything,
    /// A binary of a package.
    Binary(&'a str, &'a str),
    /// An example of a package.
    Example(&'a str, &'a str),
    /// All binaries and examples of a package that is no member of the workspace, in a
    /// directory of its own; without the network, into this target directory.
    Elsewhere(&'a Path, &'a Path),
}

/// The executables of a build, by the names of their binaries and examples,
/// which are unique in the workspace.
pub type Executables = HashMap<String, PathBuf>;

/// Builds `target` in the development or the release profile.
///
/// # Errors
/// When cargo cannot be run, or the build fails: its own words have gone to
/// standard error by then.
pub fn build(target: Target, release: bool) -> Result<Executables> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = match target {
        Target::Elsewhere(package, _) => package.join("Cargo.toml"),
        _ => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"),
    };
    let mut command = Command::new(cargo);
    command
        .args([
            "build",
            "--quiet",
            "--message-format=json-render-diagnostics",
        ])
        .arg("--manifest-path")
        .arg(manifest)
        .stderr(Stdio::inherit());
    match target {
        Target::Everything => command.args(["--workspace", "--bins", "--examples"]),
        Target::Binary(package, name) => command.args(["--package", package, "--bin", name]),
        Target::Elsewhere(_, directory) => command
            .args(["--offline", "--bins", "--examples", "--target-dir"])
            .arg(directory),
        Target::Example(package, name) => command.args(["--package", package, "--example", name]),
    };
    if release {
        command.arg("--release");
    }
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo build failed");
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// The part of cargo's messages that matters here; each is a line of JSON.
#[derive(Deserialize)]
struct Message {
    target: Option<Built>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Built {
    name: String,
}

fn executables(messages: &str) -> Executables {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    messages
        .filter_map(|message: Message| Some((message.target?.name, message.executable?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_the_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"some_library"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"echo-poll"},"executable":"/t/echo-poll"}
{"reason":"build-finished","success":true}
"#;
        let found = executables(messages);
        assert_eq!(found.len(), 1);
        assert_eq!(found["echo-poll"], PathBuf::from("/t/echo-poll"));
    }
}
