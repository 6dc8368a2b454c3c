//! What the tests that examine many programs share.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use grade::cargo::Executables;
use grade::catalog::Traits;
use grade::check::{Check, Outcome};
use grade::program::{Kind, Program};
use libtest_mimic::{Arguments, Trial};

/// How long silent clients wait here.
const PATIENCE: Duration = Duration::from_secs(3);

/// Most checks wait most of the time, whatever the number of CPUs.
const THREADS: usize = 16;

/// Runs the trials of the programs that were built.
pub(crate) fn run(
    built: anyhow::Result<Executables>,
    trials: impl FnOnce(&Executables) -> Vec<Trial>,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    match built {
        Ok(built) => libtest_mimic::run(&arguments, trials(&built)).exit_code(),
        Err(error) => {
            eprintln!("cannot build the programs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What comes of a check of one of our programs.
pub(crate) fn examine(check: &Check, name: &str, executable: &Path, traits: Traits) -> Outcome {
    let program = Program {
        name: name.to_string(),
        kind: Kind::Ours(executable.to_path_buf()),
        traits,
    };
    check.examine(&program, PATIENCE)
}
