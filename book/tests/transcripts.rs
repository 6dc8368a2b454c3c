//! Plays every transcript of the book; and small ones that are wrong, which must be rejected.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("The transcripts are skipped: they were recorded on Linux");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(target_os = "linux")]
mod common;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::path::Path;
    use std::process::ExitCode;
    use std::sync::Arc;

    use book::source::Source;
    use book::transcript::{self, scene::Scene};
    use libtest_mimic::{Arguments, Failed, Trial};

    use crate::common::repository;

    /// Scenes mostly wait, whatever the number of processors.
    const THREADS: usize = 10;

    pub(crate) fn main() -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads = arguments.test_threads.or(Some(THREADS));
        if let Err(reason) = transcript::possible() {
            println!("The transcripts are skipped: {reason:#}");
            return ExitCode::SUCCESS;
        }
        let mut trials = wrong_ones();
        trials.push(Trial::test(
            "a recording mends a page",
            a_recording_mends_a_page,
        ));
        match of_the_book(&arguments) {
            Ok(scenes) => trials.extend(scenes),
            Err(error) => {
                eprintln!("{error:#}");
                return ExitCode::FAILURE;
            }
        }
        libtest_mimic::run(&arguments, trials).exit_code()
    }

    /// A trial for each scene of the book.
    fn of_the_book(arguments: &Arguments) -> anyhow::Result<Vec<Trial>> {
        let root = book::repository();
        let source = Arc::new(Source::read(&root)?);
        let scenes = transcript::scenes(&source, "");
        if !arguments.list {
            transcript::build_programs(&root, &scenes)?;
        }
        let trials = scenes.iter().enumerate().map(|(number, scene)| {
            let name = transcript::place(scene);
            if let Some(tool) = transcript::missing_tool(scene) {
                println!("{name} is skipped: {tool} is not installed");
                return Trial::test(name, || Ok(())).with_ignored_flag(true);
            }
            let (source, root) = (Arc::clone(&source), root.clone());
            Trial::test(name, move || {
                let scene = &transcript::scenes(&source, "")[number];
                match transcript::compare(scene, &root).map_err(|it| format!("{it:#}"))? {
                    None => Ok(()),
                    Some(problem) => Err(Failed::from(problem.to_string())),
                }
            })
        });
        Ok(trials.collect())
    }

    /// Pages whose transcripts are not what happens, and what is said of them.
    const WRONG: [(&str, &str, &str); 12] = [
        ("right", "$ echo one\none\n$ echo two\ntwo\n", ""),
        (
            "another output",
            "$ echo one\ntwo\n",
            "book/en/echo.md:5: the page shows \"two\", the run printed \"one\"",
        ),
        (
            "an output that never comes",
            "$ true\none\n$ true\n",
            "book/en/echo.md:5: the page shows \"one\", which did not come; the terminal shows \"$ \"",
        ),
        (
            "a line left out in the middle",
            "$ printf 'one\\ntwo\\n'\none\n$ true\n",
            "book/en/echo.md:6: before this the run printed \"two\"",
        ),
        (
            "a line left out at the end",
            "$ printf 'one\\ntwo\\n'; printf three\none\n",
            "book/en/echo.md:5: after this the run printed \"two\", which the page does not show",
        ),
        (
            "lines left out with dots",
            "$ seq 9\n1\n...\n9\n$ true\n",
            "",
        ),
        (
            "dots, and then another line",
            "$ seq 9\n1\n...\n10\n$ true\n",
            "book/en/echo.md:7: the page shows \"10\", which did not come; the terminal shows \"$ \"",
        ),
        (
            "something typed into a program",
            "$ cat\nhello⏎\nhello\n^D\n$ true\n",
            "",
        ),
        (
            "another answer to what is typed",
            "$ cat\nhello⏎\nhallo\n^D\n",
            "book/en/echo.md:6: the page shows \"hallo\", the run printed \"hello\"",
        ),
        ("a key", "$ sleep 60\n^C\n$ echo $?\n130\n", ""),
        (
            "another status",
            "$ false\n$ echo $?\n0\n",
            "book/en/echo.md:6: the page shows \"0\", the run printed \"1\"",
        ),
        (
            "a process, named again",
            "$ sh -c 'echo process $$'\nprocess 100\n$ true 100\n",
            "",
        ),
    ];

    fn wrong_ones() -> Vec<Trial> {
        let trials = WRONG.into_iter().map(|(name, block, expected)| {
            let name = format!("a transcript with {name}");
            Trial::test(name, move || {
                let folder = repository(&[("book/en/echo.md", &page(block))]);
                let said = said_of(folder.path())?;
                if said == expected {
                    Ok(())
                } else {
                    Err(Failed::from(said))
                }
            })
        });
        trials.collect()
    }

    fn page(block: &str) -> String {
        format!("# Echo {{#echo}}\n\n```console\n{block}```\n")
    }

    /// What a comparison says of the only scene of the small book.
    fn said_of(root: &Path) -> Result<String, Failed> {
        let source = Source::read(root).map_err(|it| it.to_string())?;
        let scenes: Vec<Scene> = transcript::scenes(&source, "echo");
        let problem = transcript::compare(&scenes[0], root).map_err(|it| format!("{it:#}"))?;
        Ok(problem.map_or(String::new(), |it| it.to_string()))
    }

    fn a_recording_mends_a_page() -> Result<(), Failed> {
        let wrong = "$ sh -c 'echo process $$'\nprocess 100\n$ printf 'one\\ntwo\\n'\nthree\n";
        let folder = repository(&[("book/en/echo.md", &page(wrong))]);
        let file = folder.path().join("book/en/echo.md");
        let changed = transcript::bless(folder.path(), "echo").map_err(|it| format!("{it:#}"))?;
        let text = fs::read_to_string(&file)?;
        let right = "$ sh -c 'echo process $$'\nprocess 100\n$ printf 'one\\ntwo\\n'\none\ntwo\n";
        if changed.len() == 1 && text == page(right) {
            return Ok(());
        }
        Err(Failed::from(text))
    }
}
