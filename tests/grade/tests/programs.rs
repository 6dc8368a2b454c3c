//! Every check against every program of the chapters that promises what it
//! checks: they must pass.

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    trials::run()
}

#[cfg(unix)]
mod trials {
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;
    use std::time::Duration;

    use grade::cargo::{self, Target};
    use grade::catalog::{CHAPTERS, Chapter};
    use grade::check::{Check, Outcome};
    use grade::checks;
    use grade::program::{Kind, Program};
    use libtest_mimic::{Arguments, Completion, Failed, Trial};

    /// How long silent clients wait here.
    const PATIENCE: Duration = Duration::from_secs(3);

    /// Most checks wait most of the time, whatever the number of CPUs.
    const THREADS: usize = 16;

    pub(super) fn run() -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads = arguments.test_threads.or(Some(THREADS));
        let built = match cargo::build(Target::Everything, false) {
            Ok(built) => built,
            Err(error) => {
                eprintln!("cannot build the programs: {error:#}");
                return ExitCode::FAILURE;
            }
        };
        let trials = CHAPTERS.iter().flat_map(|chapter| {
            let executable = built.get(chapter.binary).cloned();
            checks::applicable(&chapter.traits)
                .map(move |check| trial(chapter, check, executable.clone()))
        });
        libtest_mimic::run(&arguments, trials.collect()).exit_code()
    }

    fn trial(chapter: &'static Chapter, check: &'static Check, built: Option<PathBuf>) -> Trial {
        let name = format!("{}: {}", chapter.binary, check.name);
        Trial::ignorable_test(name, move || match &built {
            Some(executable) => examine(chapter, check, executable),
            None => Err(format!("{} has no binary {}", chapter.package, chapter.binary).into()),
        })
    }

    fn examine(chapter: &Chapter, check: &Check, executable: &Path) -> Result<Completion, Failed> {
        let program = Program {
            name: chapter.binary.to_string(),
            kind: Kind::Ours(executable.to_path_buf()),
            traits: chapter.traits,
        };
        match check.examine(&program, PATIENCE) {
            Outcome::Passed => Ok(Completion::Completed),
            Outcome::Skipped(reason) => Ok(Completion::ignored_with(reason)),
            Outcome::Failed(failure) => Err(check.explain(&failure).into()),
        }
    }
}
