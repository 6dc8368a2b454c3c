//! Every check against every program of the chapters that promises what it
//! checks: they must pass.

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
mod common;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    trials::run()
}

#[cfg(unix)]
mod trials {
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;

    use grade::cargo::{self, Target};
    use grade::catalog::{CHAPTERS, Chapter};
    use grade::check::{Check, Outcome};
    use grade::checks;
    use libtest_mimic::{Completion, Failed, Trial};

    use super::common;

    pub(super) fn run() -> ExitCode {
        common::run(cargo::build(Target::Everything, false), |built| {
            let trials = CHAPTERS.iter().flat_map(|chapter| {
                let executable = built.get(chapter.binary).cloned();
                checks::applicable(&chapter.traits)
                    .map(move |check| trial(chapter, check, executable.clone()))
            });
            trials.collect()
        })
    }

    fn trial(chapter: &'static Chapter, check: &'static Check, built: Option<PathBuf>) -> Trial {
        let name = format!("{}: {}", chapter.binary, check.name);
        Trial::ignorable_test(name, move || match &built {
            Some(executable) => examine(chapter, check, executable),
            None => Err(format!("{} has no binary {}", chapter.package, chapter.binary).into()),
        })
    }

    fn examine(chapter: &Chapter, check: &Check, executable: &Path) -> Result<Completion, Failed> {
        match common::examine(check, chapter.binary, executable, chapter.traits) {
            Outcome::Passed => Ok(Completion::Completed),
            Outcome::Skipped(reason) => Ok(Completion::ignored_with(reason)),
            Outcome::Failed(failure) => Err(check.explain(&failure).into()),
        }
    }
}
