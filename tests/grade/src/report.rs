//! A grading: many checks at a time, told in order.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::check::{Check, Outcome};
use crate::program::Program;

/// Checks that run at the same time: most of them wait most of the time.
const AT_ONCE: usize = 8;

/// How many checks ended in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The program behaves.
    pub passed: usize,
    /// It does not.
    pub failed: usize,
    /// Not found out here.
    pub skipped: usize,
}

/// Runs the checks against a program, and tells of each in the order given, as
/// soon as it and all before it are done.
///
/// # Errors
/// When the report cannot be written; the checks that run then still end.
pub fn grade(
    program: &Program,
    checks: &[&Check],
    patience: Duration,
    out: &mut impl Write,
) -> io::Result<Tally> {
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(checks.len()) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(check) = checks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = check.examine(program, patience);
                    // Nobody listens any more: the report could not be written.
                    if sender.send((check.name, outcome)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut tally = Tally::default();
        for check in checks {
            let outcome = loop {
                if let Some(outcome) = early.remove(check.name) {
                    break Some(outcome);
                }
                match results.recv() {
                    Ok((name, outcome)) => early.insert(name, outcome),
                    Err(mpsc::RecvError) => break None,
                };
            };
            match outcome {
                Some(outcome) => tell(check, &outcome, &mut tally, out)?,
                None => break,
            }
        }
        Ok(tally)
    })
}

fn tell(
    check: &Check,
    outcome: &Outcome,
    tally: &mut Tally,
    out: &mut impl Write,
) -> io::Result<()> {
    let name = check.name;
    match outcome {
        Outcome::Passed => {
            tally.passed += 1;
            writeln!(out, "✓ {name}")?;
        }
        Outcome::Skipped(reason) => {
            tally.skipped += 1;
            writeln!(out, "- {name}\n    skipped: {reason}")?;
        }
        Outcome::Failed(failure) => {
            tally.failed += 1;
            writeln!(out, "✗ {name}")?;
            for line in check.explain(failure).lines() {
                writeln!(out, "    {line}")?;
            }
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;
    use crate::check::{Failure, Stop};
    use crate::program::Kind;

    const fn check(
        name: &'static str,
        run: fn(&crate::check::Case) -> crate::check::Result,
    ) -> Check {
        Check {
            name,
            cause: "the usual one",
            section: "ch01-echo.md#somewhere",
            descriptors: 0,
            applies: |_| true,
            run,
        }
    }

    #[test]
    fn outcomes_are_told_in_order_whichever_comes_first_and_a_panic_is_one() {
        let slow = check("slow", |_| {
            thread::sleep(Duration::from_millis(50));
            Ok(())
        });
        let fails = check("fails", |_| Failure::new("trying").came("nothing").stop());
        let skips = check("skips", |_| Err(Stop::skipped("not here")));
        let panics = check("panics", |_| panic!("of itself"));
        let program = Program {
            name: "none".to_string(),
            kind: Kind::Foreign(Vec::new()),
            traits: catalog::ECHO,
        };
        let mut out = Vec::new();
        let checks = [&slow, &fails, &skips, &panics];
        let tally = grade(&program, &checks, Duration::ZERO, &mut out).expect("a vector");
        let expected = Tally {
            passed: 1,
            failed: 2,
            skipped: 1,
        };
        assert_eq!(tally, expected);
        let told = String::from_utf8(out).expect("text");
        let heads: Vec<_> = told.lines().filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(heads, ["✓ slow", "✗ fails", "- skips", "✗ panics"]);
        assert!(told.contains("came      of itself"), "{told}");
        assert!(told.contains("book/en/ch01-echo.md#somewhere"), "{told}");
    }
}
