//! `cargo grade`: grades the programs of the chapters, or any other one.

#[cfg(not(unix))]
fn main() -> std::process::ExitCode {
    eprintln!("The grader needs process groups and signals, which only Unix has.");
    std::process::ExitCode::FAILURE
}

#[cfg(unix)]
fn main() -> anyhow::Result<std::process::ExitCode> {
    command::run()
}

#[cfg(unix)]
mod command {
    use std::io::{self, Write};
    use std::process::ExitCode;
    use std::time::Duration;

    use anyhow::{Context, Result, bail};
    use clap::{CommandFactory, Parser, error::ErrorKind};
    use grade::cargo::{self, Target};
    use grade::catalog::{CHAPTERS, Chapter, SPECIMENS, Traits};
    use grade::check::Check;
    use grade::checks;
    use grade::program::{Kind, Program};
    use grade::report::{self, Tally};

    /// Grades a chapter's program, one of its variations, or any other program.
    ///
    /// Without arguments, lists what there is. Exits with 0 if no check
    /// failed, 1 if one did, and 2 for a wrong command line.
    #[derive(Parser)]
    #[command(name = "cargo grade", bin_name = "cargo grade")]
    struct Arguments {
        /// The chapter, such as ch02
        chapter: Option<String>,

        /// A variation of the chapter's program, such as echo-poll
        #[arg(long, value_name = "NAME", conflicts_with = "example")]
        bin: Option<String>,

        /// A specimen of the chapter, which is wrong on purpose
        #[arg(long, value_name = "NAME")]
        example: Option<String>,

        /// Only the checks whose name contains this
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,

        /// Builds with optimizations
        #[arg(long)]
        release: bool,

        /// How long a silent client waits; PHP drops it after 60
        #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
        patience: u64,

        /// Any program, to be graded instead: {addr}, {host} and {port} are
        /// replaced, and PORT is set
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<String>,
    }

    /// What a command line asks for.
    struct Wanted {
        name: String,
        traits: Traits,
        target: Target<'static>,
    }

    pub(super) fn run() -> Result<ExitCode> {
        let arguments = Arguments::parse();
        let Some(chapter) = &arguments.chapter else {
            if arguments.bin.is_some()
                || arguments.example.is_some()
                || !arguments.command.is_empty()
            {
                wrong("name the chapter, whose checks are to be run");
            }
            list(&mut io::stdout().lock())?;
            return Ok(ExitCode::SUCCESS);
        };
        let wanted = wanted(chapter, &arguments).unwrap_or_else(|message| wrong(&message));
        let applicable = checks::applicable(&wanted.traits);
        let only = arguments.only.as_deref().unwrap_or_default();
        let chosen: Vec<&Check> = applicable
            .filter(|check| check.name.contains(only))
            .collect();
        if chosen.is_empty() {
            let name = &wanted.name;
            wrong(&format!("{name} has no check with {only:?} in its name"));
        }
        let program = program(wanted, &arguments)?;
        let patience = Duration::from_secs(arguments.patience);
        let mut out = io::stdout();
        let plural = if chosen.len() == 1 { "" } else { "s" };
        writeln!(out, "{}: {} check{plural}", program.name, chosen.len())?;
        let tally = report::grade(&program, &chosen, patience, &mut out)?;
        let Tally {
            passed,
            failed,
            skipped,
        } = tally;
        writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
        Ok(if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Ends with a wrong command line, in clap's manner.
    fn wrong(message: &str) -> ! {
        let mut command = Arguments::command();
        command.error(ErrorKind::ValueValidation, message).exit()
    }

    fn list(out: &mut impl Write) -> io::Result<()> {
        for chapter in CHAPTERS {
            let name = if chapter.is_main() {
                writeln!(out, "{}", chapter.short())?;
                chapter.package.to_string()
            } else {
                format!("--bin {}", chapter.binary)
            };
            let count = checks::applicable(&chapter.traits).count();
            let about = chapter.about;
            writeln!(out, "  {name:<24} {count:>2} checks  {about}")?;
            let is_last = |next: Option<&Chapter>| next.is_none_or(Chapter::is_main);
            let next = CHAPTERS
                .iter()
                .skip_while(|other| other.binary != chapter.binary)
                .nth(1);
            if is_last(next) {
                for specimen in SPECIMENS.iter().filter(|it| it.package == chapter.package) {
                    let (name, fault) = (specimen.example, specimen.fault);
                    writeln!(
                        out,
                        "  --example {name:<14}             wrong on purpose ({fault})"
                    )?;
                }
            }
        }
        Ok(())
    }

    fn wanted(chapter: &str, arguments: &Arguments) -> Result<Wanted, String> {
        let is_meant = |short: &str, package: &str| chapter == short || chapter == package;
        let binaries: Vec<&Chapter> = CHAPTERS
            .iter()
            .filter(|it| is_meant(it.short(), it.package))
            .collect();
        let Some(main) = binaries.iter().find(|binary| binary.is_main()) else {
            let known = CHAPTERS
                .iter()
                .filter(|it| it.is_main())
                .map(Chapter::short);
            let known: Vec<_> = known.collect();
            return Err(format!(
                "no chapter {chapter}; there are {}",
                known.join(", ")
            ));
        };
        if let Some(name) = &arguments.example {
            let mut specimens = SPECIMENS.iter().filter(|it| it.package == main.package);
            let Some(specimen) = specimens.clone().find(|it| it.example == name) else {
                let known: Vec<_> = specimens.by_ref().map(|it| it.example).collect();
                let known = known.join(", ");
                return Err(format!(
                    "{chapter} has no specimen {name}; it has [{known}]"
                ));
            };
            return Ok(Wanted {
                name: specimen.example.to_string(),
                traits: specimen.traits,
                target: Target::Example(specimen.package, specimen.example),
            });
        }
        let name = arguments.bin.as_deref().unwrap_or(main.binary);
        let Some(binary) = binaries.iter().find(|it| it.binary == name) else {
            let known: Vec<_> = binaries.iter().map(|it| it.binary).collect();
            let known = known.join(", ");
            return Err(format!("{chapter} has no program {name}; it has {known}"));
        };
        Ok(Wanted {
            name: binary.binary.to_string(),
            traits: binary.traits,
            target: Target::Binary(binary.package, binary.binary),
        })
    }

    fn program(wanted: Wanted, arguments: &Arguments) -> Result<Program> {
        let Wanted {
            name,
            traits,
            target,
        } = wanted;
        if !arguments.command.is_empty() {
            return Ok(Program {
                name: arguments.command.join(" "),
                kind: Kind::Foreign(arguments.command.clone()),
                traits,
            });
        }
        let built = cargo::build(target, arguments.release);
        let mut built = built.with_context(|| format!("cannot build {name}"))?;
        let Some(executable) = built.remove(&name) else {
            bail!("cargo built no executable called {name}");
        };
        Ok(Program {
            name,
            kind: Kind::Ours(executable),
            traits,
        })
    }
}
