//! Every check against every specimen, which is wrong on purpose: exactly the
//! checks that the catalog names must reject it.

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
    use grade::catalog::{SPECIMENS, Specimen};
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
                eprintln!("cannot build the specimens: {error:#}");
                return ExitCode::FAILURE;
            }
        };
        let trials = SPECIMENS.iter().flat_map(|specimen| {
            let executable = built.get(specimen.example).cloned();
            checks::applicable(&specimen.traits)
                .map(move |check| trial(specimen, check, executable.clone()))
        });
        libtest_mimic::run(&arguments, trials.collect()).exit_code()
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
        let program = Program {
            name: specimen.example.to_string(),
            kind: Kind::Ours(executable.to_path_buf()),
            traits: specimen.traits,
        };
        match check.examine(&program, PATIENCE) {
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
