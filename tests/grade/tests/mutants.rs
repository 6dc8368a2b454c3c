//! For every check that rejects no specimen there is a mutant here that it
//! must reject. A check that passes on a wrong program is a defect.
//!
//! A specimen is a whole program, to be read and run. A mutant is a chapter's
//! program with a few words replaced, by a mistake that people make. When the
//! chapter changes so that these words are gone, the test says so, and fails.

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
#[path = "../mutants/table.rs"]
mod table;

#[cfg(unix)]
mod common;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    trials::run()
}

#[cfg(unix)]
mod trials {
    use std::collections::HashSet;
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;
    use std::{fs, io};

    use anyhow::{Context, Result, ensure};
    use grade::cargo::{self, Executables, Target};
    use grade::catalog::{CHAPTERS, Chapter, SPECIMENS};
    use grade::check::{Check, Outcome};
    use grade::checks;
    use libtest_mimic::{Completion, Failed, Trial};

    use super::common;
    use super::table::{MUTANTS, Mutant};

    pub(super) fn run() -> ExitCode {
        common::run(build(), |built| {
            let trials = MUTANTS.iter().flat_map(|mutant| {
                let executable = built.get(mutant.name).cloned();
                let checks = mutant.fails.iter();
                checks.map(move |check| trial(mutant, check, executable.clone()))
            });
            let coverage = Trial::test("every check has a wrong program", every_check_is_covered);
            trials.chain([coverage]).collect()
        })
    }

    fn trial(mutant: &'static Mutant, name: &'static str, built: Option<PathBuf>) -> Trial {
        Trial::ignorable_test(format!("{} fails: {name}", mutant.name), move || {
            let executable = built.as_deref().ok_or("it was not built")?;
            let check = checks::all().find(|check| check.name == name);
            examine(mutant, check.ok_or("there is no such check")?, executable)
        })
    }

    fn examine(mutant: &Mutant, check: &Check, executable: &Path) -> Result<Completion, Failed> {
        let traits = origin(mutant)?.traits;
        if !(check.applies)(&traits) {
            return Err("the check does not apply to it".into());
        }
        match common::examine(check, mutant.name, executable, traits) {
            Outcome::Failed(_) => Ok(Completion::Completed),
            Outcome::Skipped(reason) => Ok(Completion::ignored_with(reason)),
            Outcome::Passed => Err(format!("passed a program that {}", mutant.mistake).into()),
        }
    }

    fn every_check_is_covered() -> Result<(), Failed> {
        let by_specimen = SPECIMENS.iter().flat_map(|specimen| specimen.rejected_by);
        let by_mutant = MUTANTS.iter().flat_map(|mutant| mutant.fails);
        let covered: HashSet<_> = by_specimen.chain(by_mutant).copied().collect();
        let missing: Vec<_> = checks::all()
            .map(|check| check.name)
            .filter(|name| !covered.contains(name))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join("\n  ");
        Err(format!("neither a specimen nor a mutant fails\n  {missing}").into())
    }

    fn origin(mutant: &Mutant) -> Result<&'static Chapter> {
        let mut chapters = CHAPTERS.iter();
        chapters
            .find(|chapter| chapter.binary == mutant.of)
            .with_context(|| format!("{}: there is no program {}", mutant.name, mutant.of))
    }

    /// Writes a package with all mutants next to the build's other files, and
    /// builds it with the dependencies that were compiled for the workspace.
    fn build() -> Result<Executables> {
        let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants");
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()?;
        let binaries = package.join("src/bin");
        fs::create_dir_all(&binaries)?;

        // They all go to the same place, where one would overwrite the other.
        let chapters = CHAPTERS.iter().map(|chapter| chapter.binary);
        let specimens = SPECIMENS.iter().map(|specimen| specimen.example);
        let names: HashSet<_> = chapters.chain(specimens).collect();
        let mut wanted = HashSet::new();
        for mutant in MUTANTS {
            let file = binaries.join(format!("{}.rs", mutant.name));
            update(&file, &source(mutant, &workspace)?)?;
            let twice = !wanted.insert(file) || names.contains(mutant.name);
            ensure!(!twice, "two programs {}", mutant.name);
        }
        for entry in fs::read_dir(&binaries)? {
            let file = entry?.path();
            if !wanted.contains(&file) {
                fs::remove_file(file)?; // of a mutant that is no more
            }
        }
        update(&package.join("Cargo.toml"), &manifest(&workspace)?)?;
        fs::copy(workspace.join("Cargo.lock"), package.join("Cargo.lock"))?;
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        cargo::build(
            Target::Elsewhere(&package, target.context("no target directory")?),
            false,
        )
    }

    /// The chapter's program with the mutant's mistakes.
    fn source(mutant: &Mutant, workspace: &Path) -> Result<String> {
        let chapter = origin(mutant)?;
        let file = if chapter.is_main() {
            "main.rs".to_string()
        } else {
            format!("bin/{}.rs", chapter.binary)
        };
        let path = workspace.join("chapters").join(chapter.package);
        let path = path.join("src").join(file);
        let text = fs::read_to_string(&path).context(format!("{}", path.display()))?;
        // The book's marks are no part of the program.
        let lines = text.split_inclusive('\n');
        let mut text: String = lines.filter(|it| !it.contains("// ANCHOR")).collect();
        for (right, wrong) in mutant.edits {
            let found = text.matches(right).count();
            let (name, of) = (mutant.name, mutant.of);
            ensure!(
                found == 1,
                "{name}: {of} has this {found} times, not once:\n{right}"
            );
            text = text.replacen(right, wrong, 1);
        }
        Ok(text)
    }

    /// A package with all dependencies of the workspace, so that cargo chooses
    /// the same features of each, and finds it compiled already.
    fn manifest(workspace: &Path) -> Result<String> {
        let text = fs::read_to_string(workspace.join("Cargo.toml"))?;
        let (_, rest) = text
            .split_once("[workspace.dependencies]\n")
            .context("no [workspace.dependencies]")?;
        let dependencies = rest.split("\n[").next().unwrap_or_default();
        let dependencies =
            dependencies.replace("path = \"", &format!("path = \"{}/", workspace.display()));
        Ok(format!(
            r#"[package]
name = "mutants"
edition = "2024"

[workspace]

[lints.rust]
warnings = "allow"

[profile.dev.package.mutants]
debug = false
incremental = false
strip = "debuginfo"

[dependencies]
{dependencies}
# What only tests of the workspace ask for; cargo heeds it because of `--examples`.
[dev-dependencies]
nix = {{ version = "*", features = ["pthread"] }}
"#
        ))
    }

    /// Leaves a file alone whose content is right: cargo looks at its time.
    fn update(file: &Path, content: &str) -> io::Result<()> {
        match fs::read_to_string(file) {
            Ok(present) if present == content => Ok(()),
            _ => fs::write(file, content),
        }
    }
}
