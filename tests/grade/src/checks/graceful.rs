//! Servers that end when they are asked to, and listen to other signals too.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use nix::sys::signal::kill;
use tempfile::TempDir;

use crate::bytes::pattern;
use crate::catalog::{Shutdown, Traits};
use crate::check::{Case, Check, During, Failure, ORDINARY, Result};
use crate::checks::idle::settles;
use crate::checks::signals::ends;
use crate::client::{Client, STALL, Transfer};
use crate::job::describe;
use crate::server::{Launch, Server, run_to_end};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "with nobody connected, SIGTERM and SIGINT end the server at once with status 0",
        cause: "a handler sets a flag, but the server sleeps on in accept: std and SA_RESTART \
                start it again after EINTR, and the flag is looked at when the next client \
                comes. Or the signal has its default action",
        section: "ch05-signals/handlers.md#eintr",
        descriptors: ORDINARY,
        applies: |traits| traits.shutdown != Shutdown::Abrupt,
        run: nobody_connected,
    },
    Check {
        name: "asked to end, the server echoes to its clients until the last one leaves",
        cause: "the signal ends the program, or its clients are closed together with the \
                listener, or what waits for them is dropped",
        section: "ch05-signals/graceful.md#draining",
        descriptors: ORDINARY,
        applies: |traits| traits.shutdown != Shutdown::Abrupt,
        run: clients_finish,
    },
    Check {
        name: "asked to end, the server refuses newcomers",
        cause: "the listener stays open: newcomers wait in the kernel's queue for a server \
                that will never accept them",
        section: "ch05-signals/graceful.md#draining",
        descriptors: ORDINARY,
        applies: drains,
        run: newcomers_are_refused,
    },
    Check {
        name: "at the deadline the server ends with status 1, though a client stays",
        cause: "a client that never leaves keeps the server for ever, or the status hides \
                that it was cut off",
        section: "ch05-signals/graceful.md#deadline",
        descriptors: ORDINARY,
        applies: drains,
        run: deadline_passes,
    },
    Check {
        name: "a second SIGTERM or SIGINT ends the server at once with status 1",
        cause: "the second request is taken like the first one, and the first is still at it",
        section: "ch05-signals/graceful.md#second-signal",
        descriptors: ORDINARY,
        applies: drains,
        run: second_signal,
    },
    Check {
        name: "SIGHUP re-reads the settings, and connections survive",
        cause: "the signal has its default action, or the settings are a copy that nobody \
                replaces",
        section: "ch05-signals/graceful.md#reload",
        descriptors: ORDINARY,
        applies: drains,
        run: reload,
    },
    Check {
        name: "bad settings on SIGHUP are reported with file and line, and change nothing",
        cause: "the old settings are gone before the new ones are known to be good, or a \
                typing error ends a running service",
        section: "ch05-signals/graceful.md#reload",
        descriptors: ORDINARY,
        applies: drains,
        run: bad_reload,
    },
    Check {
        name: "SIGHUP without a settings file says so, and ends nothing",
        cause: "the signal keeps its default action when there is nothing to re-read",
        section: "ch05-signals/graceful.md#reload",
        descriptors: ORDINARY,
        applies: drains,
        run: reload_without_file,
    },
    Check {
        name: "bad settings at the start are refused with file and line",
        cause: "errors in the settings are ignored, or reported without the file's name",
        section: "ch05-signals/graceful.md#settings",
        descriptors: ORDINARY,
        applies: drains,
        run: bad_start,
    },
    Check {
        name: "SIGUSR1 tells counters that are true",
        cause: "a client that was reset is counted as open for ever, or one that was refused \
                as accepted",
        section: "ch05-signals/graceful.md#counters",
        descriptors: ORDINARY,
        applies: drains,
        run: counters,
    },
    Check {
        name: "a storm of SIGHUP and SIGUSR1 during a 16 MiB echo loses no byte",
        cause: "a read or write that a signal has interrupted (EINTR) is taken for finished \
                or failed, or clients starve while signals come",
        section: "ch05-signals/handlers.md#eintr",
        descriptors: ORDINARY,
        applies: drains,
        run: storm_during_echo,
    },
];

fn drains(traits: &Traits) -> bool {
    traits.shutdown == Shutdown::Draining
}

/// A server that does not close its port in this time will not close it.
const SOON: Duration = Duration::from_secs(1);

const REQUESTS: [Signal; 2] = [SIGTERM, SIGINT];

/// A file with settings, in a directory of its own.
struct Settings {
    path: PathBuf,
    _directory: TempDir,
}

impl Settings {
    fn new(text: &str) -> Result<Self> {
        let directory = TempDir::new().during("making a directory for settings")?;
        let path = directory.path().join("settings.toml");
        let settings = Settings {
            path,
            _directory: directory,
        };
        settings.write(text)?;
        Ok(settings)
    }

    fn write(&self, text: &str) -> Result {
        fs::write(&self.path, text).during("writing the settings file")
    }

    /// The program, about to be started with this file.
    fn launch<'a>(&self, case: &'a Case) -> Result<Launch<'a>> {
        case.conventions()?;
        Ok(case.launch().arguments(&["--settings", name(&self.path)]))
    }
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap_or("settings.toml")
}

fn nobody_connected(case: &Case) -> Result {
    for signal in REQUESTS {
        for visitors in 0..2 {
            case.run_with(case.launch(), |server| {
                for _ in 0..visitors {
                    case.visit(server)?;
                }
                // Asleep in accept: a signal that comes earlier finds its flag looked at.
                settles(server);
                server.signal(signal)?;
                let sent = format!("{signal}, after {visitors} clients that have left");
                ends(case, server, &sent, "exit status 0")
            })?;
        }
    }
    Ok(())
}

fn clients_finish(case: &Case) -> Result {
    /// A client that does not read is held long before this.
    const MOST: u64 = 16 << 20;
    for signal in REQUESTS {
        case.run_with(case.launch(), |server| {
            let mut talker = match case.at_once(2) {
                2 => Some(case.client(server)?),
                _ => None,
            };
            if let Some(talker) = &mut talker {
                talker.exchange(b"before\n")?;
            }
            let mut reader = case.narrow_client(server)?;
            reader.exchange(b"before\n")?;
            let pushed = reader.push(MOST, Duration::from_millis(300))?;
            server.signal(signal)?;
            // It may take a moment to hear of it, so this takes a while, too.
            for _ in 0..20 {
                if let Some(talker) = &mut talker {
                    talker.exchange(b"and still\n")?;
                }
                thread::sleep(Duration::from_millis(10));
            }
            if let Some(talker) = &mut talker {
                talker.finish_sending()?;
                talker.expect_end()?;
            }
            reader.expect_pattern(pushed.bytes)?;
            reader.exchange(b"thanks\n")?;
            if let Some(status) = server.ended() {
                return Failure::new("looking for the server while a client is connected")
                    .sent(signal.as_str())
                    .expected("a server that waits for the client to leave")
                    .came(status)
                    .stop();
            }
            reader.finish_sending()?;
            reader.expect_end()?;
            ends(
                case,
                server,
                &format!("{signal}; then the last client left"),
                "exit status 0",
            )
        })?;
    }
    Ok(())
}

fn newcomers_are_refused(case: &Case) -> Result {
    for signal in REQUESTS {
        case.run_with(case.launch(), |server| {
            let mut client = case.client(server)?;
            client.exchange(b"before\n")?;
            server.signal(signal)?;
            let refused = || case.stranger(server).is_err().then_some(());
            if case.deadline.within(STALL).until(refused).is_none() {
                return Failure::new("connecting to a server that was asked to end")
                    .sent(signal.as_str())
                    .expected("no connection")
                    .came(format!("connections, for {} s", STALL.as_secs()))
                    .stop();
            }
            client.exchange(b"after\n")
        })?;
    }
    Ok(())
}

fn deadline_passes(case: &Case) -> Result {
    const DRAIN: Duration = Duration::from_secs(1);
    let settings = Settings::new("drain_seconds = 1\n")?;
    case.run_with(settings.launch(case)?, |server| {
        let mut client = case.client(server)?;
        client.exchange(b"I stay\n")?;
        let asked = Instant::now();
        server.signal(SIGTERM)?;
        ends(
            case,
            server,
            "SIGTERM, with drain_seconds = 1",
            "exit status 1",
        )?;
        if asked.elapsed() >= DRAIN {
            return Ok(());
        }
        Failure::new("waiting for the deadline")
            .sent("SIGTERM, with drain_seconds = 1")
            .expected("an end after 1 s")
            .came(format!("one after {} ms", asked.elapsed().as_millis()))
            .stop()
    })
}

fn second_signal(case: &Case) -> Result {
    for (first, second) in [(SIGTERM, SIGTERM), (SIGINT, SIGINT), (SIGTERM, SIGINT)] {
        case.run_with(case.launch(), |server| {
            let mut client = case.client(server)?;
            client.exchange(b"I stay\n")?;
            server.signal(first)?;
            // The first one is being dealt with when newcomers are refused.
            let refused = || case.stranger(server).is_err().then_some(());
            case.deadline.within(SOON).until(refused);
            client.exchange(b"still here\n")?;
            server.signal(second)?;
            let sent = format!("{first}, then {second}, with a client that stays");
            ends(case, server, &sent, "exit status 1")
        })?;
    }
    Ok(())
}

/// A newcomer is turned away: closed, or reset, and not served.
fn is_refused(case: &Case, server: &Server, why: &str) -> Result {
    if case.client(server)?.is_closed_within(STALL) {
        return Ok(());
    }
    Failure::new("connecting a client more than max_clients")
        .sent(why)
        .expected("a connection that the server closes")
        .came("one that stays open")
        .stop()
}

/// Waits until there is room: a client that leaves may not have been noticed,
/// nor a signal.
fn newcomer(case: &Case, server: &Server) -> Result<Client> {
    let come = || -> Result<Client> {
        let mut client = case.client(server)?;
        client.exchange(b"room?\n")?;
        Ok(client)
    };
    match case.deadline.within(STALL).until(|| come().ok()) {
        Some(client) => Ok(client),
        None => come(),
    }
}

fn reload(case: &Case) -> Result {
    let settings = Settings::new("max_clients = 1\n")?;
    case.serve_with(settings.launch(case)?, |server| {
        let mut first = case.client(server)?;
        first.exchange(b"the only one\n")?;
        is_refused(case, server, "max_clients = 1")?;
        settings.write("max_clients = 2\n")?;
        server.signal(SIGHUP)?;
        let mut second = newcomer(case, server)?;
        is_refused(case, server, "max_clients = 2, and SIGHUP")?;
        first.exchange(b"we are two\n")?;
        second.exchange(b"indeed\n")?;
        // Fewer than there are: nobody is thrown out for that.
        settings.write("max_clients = 1\n")?;
        server.signal(SIGHUP)?;
        drop(second);
        first.exchange(b"one of us has left\n")?;
        is_refused(case, server, "max_clients = 1 again, and SIGHUP")?;
        first.exchange(b"to the end\n")
    })
}

/// Settings that cannot be used, each with the line that says why.
const BAD: [(&str, u32); 4] = [
    ("max_clients = 2\ndrain_seconds = \"soon\"\n", 2),
    ("\n\nmax_clients = -1\n", 3),
    ("max_clients = 2\nmax_client = 5\n", 2),
    ("max_clients 2\n", 1),
];

fn says_line(said: &str, line: u32) -> bool {
    let said = said.to_lowercase();
    said.contains(&format!("line {line}")) || said.contains(&format!(".toml:{line}"))
}

fn bad_reload(case: &Case) -> Result {
    for (bad, number) in BAD {
        let settings = Settings::new("max_clients = 1\ndrain_seconds = 30\n")?;
        case.serve_with(settings.launch(case)?, |server| {
            let mut client = case.client(server)?;
            client.exchange(b"the only one\n")?;
            settings.write(bad)?;
            server.signal(SIGHUP)?;
            let soon = case.deadline.within(STALL);
            let file = name(&settings.path);
            let named = server.wait_for_complaint(soon, |line| line.contains(file));
            let placed = server.wait_for_complaint(soon, |line| says_line(line, number));
            if named.is_none() || placed.is_none() {
                return Failure::new("waiting for a complaint about bad settings")
                    .sent(format!("{bad:?}, and SIGHUP"))
                    .expected(format!(
                        "{file} and line {number} on standard error, and a server that lives"
                    ))
                    .came(named.or(placed).unwrap_or_else(|| "neither".to_string()))
                    .stop();
            }
            is_refused(case, server, "max_clients = 1, and then bad settings")?;
            client.exchange(b"still here\n")?;
            // Better ones are taken the next time.
            settings.write("max_clients = 2\n")?;
            server.signal(SIGHUP)?;
            newcomer(case, server).map(|_| ())
        })?;
    }
    Ok(())
}

fn reload_without_file(case: &Case) -> Result {
    case.serve(|server| {
        let mut client = case.client(server)?;
        client.exchange(b"before\n")?;
        server.signal(SIGHUP)?;
        let soon = case.deadline.within(STALL);
        let said = server.wait_for_complaint(soon, |line| line.contains("settings"));
        if said.is_none() {
            return Failure::new("waiting for a complaint that there are no settings")
                .sent("SIGHUP to a server without a settings file")
                .expected("a line on standard error about the settings")
                .came("none")
                .stop();
        }
        client.exchange(b"after\n")?;
        case.visit(server)
    })
}

fn bad_start(case: &Case) -> Result {
    let executable = case.conventions()?;
    let settings = Settings::new("")?;
    let file = name(&settings.path);
    let nowhere = format!("{file}.not-there");
    let run = |file: &str, line: Option<u32>| {
        let arguments = ["--settings", file, "127.0.0.1:0"];
        let ending = run_to_end(executable.to_path_buf(), &arguments, None, case.deadline)?;
        let said = &ending.stderr;
        let placed = line.is_none_or(|line| says_line(said, line));
        let started = ending.stdout.contains("Listening on");
        if ending.status.code() == Some(1) && said.contains(file) && placed && !started {
            return Ok(());
        }
        let mut failure = Failure::new("starting the program with bad settings")
            .sent(format!("--settings {file}"))
            .expected("exit status 1, and on standard error the file and what is wrong with it")
            .came(describe(ending.status));
        let lines = said.lines().take(6).map(|line| format!("stderr: {line}"));
        failure.server.extend(lines);
        failure.stop()
    };
    run(&nowhere, None)?;
    for (bad, line) in BAD {
        settings.write(bad)?;
        run(file, Some(line))?;
    }
    Ok(())
}

/// What the server has to tell of its clients.
#[derive(Debug, PartialEq, Eq)]
struct Counters {
    open: u64,
    accepted: u64,
    refused: u64,
    echoed: u64,
}

impl Counters {
    /// Reads `2 open, 5 accepted, 1 refused; 123 bytes echoed`.
    fn of(line: &str) -> Option<Self> {
        let words = line.split(|character: char| !character.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let before = |word: &str| {
            let at = words.iter().position(|it| *it == word)?;
            words[..at].iter().rev().find_map(|word| word.parse().ok())
        };
        Some(Counters {
            open: before("open")?,
            accepted: before("accepted")?,
            refused: before("refused")?,
            echoed: before("echoed")?,
        })
    }
}

fn counters(case: &Case) -> Result {
    let settings = Settings::new("max_clients = 3\n")?;
    case.serve_with(settings.launch(case)?, |server| {
        tells(
            case,
            server,
            Counters {
                open: 0,
                accepted: 0,
                refused: 0,
                echoed: 0,
            },
        )?;
        let mut stays = case.client(server)?;
        stays.exchange(pattern(0, 50_000))?;
        let mut leaves = case.client(server)?;
        leaves.exchange(b"0123456789")?;
        let mut resets = case.client(server)?;
        resets.exchange(b"01234")?;
        tells(
            case,
            server,
            Counters {
                open: 3,
                accepted: 3,
                refused: 0,
                echoed: 50_015,
            },
        )?;
        is_refused(case, server, "max_clients = 3")?;
        is_refused(case, server, "max_clients = 3")?;
        leaves.finish_sending()?;
        leaves.expect_end()?;
        resets.reset();
        tells(
            case,
            server,
            Counters {
                open: 1,
                accepted: 3,
                refused: 2,
                echoed: 50_015,
            },
        )?;
        // One that leaves with bytes waiting for it has left, too.
        stays.push(1 << 20, Duration::from_millis(1))?;
        stays.reset();
        let mut last = newcomer(case, server)?;
        last.exchange(b"!")?;
        drop(last);
        let open_none =
            |line: &str| Counters::of(line).is_some_and(|it| it.open == 0 && it.accepted == 4);
        told(case, server, open_none, "0 open, 4 accepted")
    })
}

fn tells(case: &Case, server: &Server, expected: Counters) -> Result {
    let Counters {
        open,
        accepted,
        refused,
        echoed,
    } = expected;
    let words =
        format!("{open} open, {accepted} accepted, {refused} refused; {echoed} bytes echoed");
    told(
        case,
        server,
        |line| Counters::of(line).as_ref() == Some(&expected),
        &words,
    )
}

/// Asks until the answer is as expected: that somebody has left may not have
/// been noticed yet.
fn told(case: &Case, server: &Server, wanted: impl Fn(&str) -> bool, expected: &str) -> Result {
    let mut latest = String::new();
    let asked = case.deadline.within(STALL).until(|| {
        let before = server.lines();
        let sent = server.signal(SIGUSR1);
        let now = case.deadline.within(Duration::from_millis(500));
        sent.ok()?;
        let _ = server.wait_for_lines(now, before + 1);
        let lines = server.latest_lines(20);
        let answer = lines
            .iter()
            .rev()
            .find(|line| Counters::of(line).is_some())?;
        latest.clone_from(answer);
        wanted(answer).then_some(())
    });
    match asked {
        Some(()) => Ok(()),
        None => Failure::new("asking the server for its counters")
            .sent("SIGUSR1")
            .expected(expected)
            .came(if latest.is_empty() {
                "none".to_string()
            } else {
                latest
            })
            .stop(),
    }
}

fn storm_during_echo(case: &Case) -> Result {
    let settings = Settings::new("max_clients = 10\n")?;
    case.serve_with(settings.launch(case)?, |server| {
        let mut client = case.client(server)?;
        client.exchange(b"before\n")?;
        let (pid, over) = (server.pid(), AtomicBool::new(false));
        let transfer = Transfer {
            bytes: 16 << 20,
            half_close: false,
            pause: None,
        };
        thread::scope(|scope| {
            let storm = scope.spawn(|| {
                let mut sent = 0;
                while !over.load(Ordering::Relaxed) {
                    let signals = [SIGUSR1, SIGHUP];
                    if kill(pid, signals[sent % 2]).is_err() {
                        break;
                    }
                    sent += 1;
                }
                sent
            });
            let transferred = client.transfer(transfer);
            over.store(true, Ordering::Relaxed);
            let sent = storm.join().unwrap_or_default();
            transferred.map_err(|stop| match stop {
                crate::check::Stop::Failed(mut failure) => {
                    failure.what = format!("{}, amid {sent} signals", failure.what);
                    crate::check::Stop::Failed(failure)
                }
                other => other,
            })
        })?;
        client.exchange(b"and no more\n")
    })
}
