//! Every check against every specimen, which is wrong on purpose: exactly the
//! checks that the catalog names must reject it.

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
    use grade::catalog::{SPECIMENS, Specimen};
    use grade::check::{Check, Outcome};
    use grade::checks;
    use libtest_mimic::{Completion, Failed, Trial};

    use super::common;

    pub(super) fn run() -> ExitCode {
        common::run(cargo::build(Target::Everything, false), |built| {
            let trials = SPECIMENS.iter().flat_map(|specimen| {
                let executable = built.get(specimen.example).cloned();
                checks::applicable(&specimen.traits)
                    .map(move |check| trial(specimen, check, executable.clone()))
            });
            trials.collect()
        })
    }

    fn trial(specimen: &'static Specimen, check: &'static Check, built: Option<PathBuf>) -> Trial {
        let verb = if is_to_fail(specimen, check) {
            "fails"
        } else {
            "passes"
        };
        let name = format!("{} {verb}: {}", specimen.example, check.name);
        Trial::ignorable_test(name, move || match &built {
            Some(executable) => examine(specimen, check, executable),
            None => Err(format!("{} has no example {}", specimen.package, specimen.example).into()),
        })
    }

    fn is_to_fail(specimen: &Specimen, check: &Check) -> bool {
        specimen.rejected_by.contains(&check.name)
    }

    fn examine(
        specimen: &Specimen,
        check: &Check,
        executable: &Path,
    ) -> Result<Completion, Failed> {
        match common::examine(check, specimen.example, executable, specimen.traits) {
            Outcome::Skipped(reason) => Ok(Completion::ignored_with(reason)),
            Outcome::Failed(_) if is_to_fail(specimen, check) => Ok(Completion::Completed),
            Outcome::Failed(failure) => Err(check.explain(&failure).into()),
            Outcome::Passed if is_to_fail(specimen, check) => {
                let fault = specimen.fault;
                Err(format!("passed, though the specimen of {fault} must fail it").into())
            }
            Outcome::Passed => Ok(Completion::Completed),
        }
    }
}
