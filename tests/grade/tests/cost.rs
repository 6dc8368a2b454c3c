//! What the reactor pays for an echo and for an idle connection.
//!
//! Counts, not times: system calls by strace, instructions by valgrind, bytes by the kernel's
//! own account. They hardly depend on the machine, and not at all on what else it does. A
//! bound is what the chapter promises; the figures themselves are printed. For each bound
//! there is a server that does not keep it: a measurement that passed it would be no good.

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    trials::run()
}

#[cfg(unix)]
mod trials {
    use std::fs;
    use std::path::Path;
    use std::process::{Command, ExitCode, Stdio};
    use std::time::Duration;

    use grade::budget;
    use grade::cargo::{self, Target};
    use grade::catalog::{CHAPTERS, Traits};
    use grade::check::{Deadline, ORDINARY, Result, Stop};
    use grade::client::Client;
    use grade::program::{Kind, Program};
    use grade::server::{Launch, Server};
    use libtest_mimic::{Arguments, Completion, Trial};
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    const REACTOR: &str = "ch03-reactor";

    /// Clients that send at the same time, and the size of a message.
    const ACTIVE: usize = 50;
    const MESSAGE: [u8; 64] = [b'x'; 64];

    /// Rounds of a short and of a long run: their difference leaves out what start-up,
    /// accepting and the end cost.
    const SHORT: usize = 20;
    const LONG: usize = 120;

    /// Idle clients for the account of memory; a thread for each of so many is too much.
    const IDLE: usize = 10_000;
    const IDLE_THREADS: usize = 1_000;

    /// A figure and its bound, the program that keeps it, and one that must not.
    struct Cost {
        what: &'static str,
        bound: f64,
        measure: fn(&Path) -> Result<f64>,
        wasteful: Measured,
    }

    /// A program, built with optimization or without.
    #[derive(Clone, Copy)]
    struct Measured {
        target: Target<'static>,
        release: bool,
    }

    const fn measured(target: Target<'static>, release: bool) -> Measured {
        Measured { target, release }
    }

    const COSTS: [Cost; 3] = [
        Cost {
            what: "system calls an echo",
            bound: 2.3,
            measure: system_calls,
            wasteful: measured(Target::Example(REACTOR, "rearms-every-event"), true),
        },
        Cost {
            what: "instructions an echo",
            bound: 350.0,
            measure: instructions,
            wasteful: measured(Target::Binary(REACTOR, REACTOR), false),
        },
        Cost {
            what: "bytes an idle connection",
            bound: 150.0,
            measure: bytes,
            wasteful: measured(Target::Binary("ch02-select", "echo-threads"), true),
        },
    ];

    pub(super) fn run() -> ExitCode {
        let arguments = Arguments::from_args();
        let trials = COSTS.iter().flat_map(|cost| {
            let thrifty = measured(Target::Binary(REACTOR, REACTOR), true);
            [
                trial(cost, thrifty, true),
                trial(cost, cost.wasteful, false),
            ]
        });
        libtest_mimic::run(&arguments, trials.collect()).exit_code()
    }

    fn trial(cost: &'static Cost, measured: Measured, thrifty: bool) -> Trial {
        let Measured { target, release } = measured;
        let (Target::Binary(_, program) | Target::Example(_, program)) = target else {
            unreachable!("a program is measured, not everything");
        };
        let (what, bound) = (cost.what, cost.bound);
        let limit = if thrifty { "at most" } else { "more than" };
        let profile = if release { "release" } else { "debug" };
        let name = format!("{program} ({profile}): {what}: {limit} {bound}");
        Trial::ignorable_test(name, move || {
            let built = cargo::build(target, release).map_err(|error| format!("{error:#}"))?;
            let executable = built.get(program).ok_or("it is not built")?;
            match (cost.measure)(executable) {
                Ok(cost) if (cost <= bound) == thrifty => {
                    println!("{program} ({profile}): {cost:.2} {what}");
                    Ok(Completion::Completed)
                }
                Ok(cost) => Err(format!("{cost:.2} measured").into()),
                Err(Stop::Skipped(reason)) => Ok(Completion::ignored_with(reason)),
                Err(Stop::Failed(failure)) => Err(failure.to_string().into()),
            }
        })
    }

    fn system_calls(executable: &Path) -> Result<f64> {
        let count = |rounds| {
            // The last line of the table: `100.00  0.114492  10  11377  183 total`.
            let table = under("strace", &["-f", "-c", "-o"], executable, rounds)?;
            let calls = table
                .lines()
                .last()
                .and_then(|line| line.split_whitespace().nth(3));
            number(calls, &table)
        };
        Ok((count(LONG)? - count(SHORT)?) / ((LONG - SHORT) * ACTIVE) as f64)
    }

    fn instructions(executable: &Path) -> Result<f64> {
        let count = |rounds| {
            // The profile's last line: `totals: 2234729`.
            let options = ["--tool=callgrind", "--quiet", "--callgrind-out-file"];
            let profile = under("valgrind", &options, executable, rounds)?;
            let totals = profile
                .lines()
                .find_map(|line| line.strip_prefix("totals: "));
            number(totals, &profile)
        };
        Ok((count(LONG)? - count(SHORT)?) / ((LONG - SHORT) * ACTIVE) as f64)
    }

    fn number(found: Option<&str>, text: &str) -> Result<f64> {
        let number = found.and_then(|it| it.trim().parse().ok());
        number.ok_or_else(|| Stop::skipped(format!("the tool's report is not understood: {text}")))
    }

    /// Runs the reactor under a tool, serves some rounds, and returns the tool's report. The
    /// last of `options` takes its file.
    fn under(tool: &str, options: &[&str], executable: &Path, rounds: usize) -> Result<String> {
        let version = Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        if !version.is_ok_and(|status| status.success()) {
            return Err(Stop::skipped(format!(
                "needs {tool}, which is not installed"
            )));
        }
        let directory = tempfile::tempdir().map_err(|it| Stop::skipped(it.to_string()))?;
        let report = directory.path().join("report");
        let mut words = vec![tool.to_string()];
        words.extend(options.iter().map(|it| (*it).to_string()));
        if let Some(last) = words.last_mut().filter(|it| it.starts_with("--")) {
            *last = format!("{last}={}", report.display());
        } else {
            words.push(report.display().to_string());
        }
        words.extend([executable.display().to_string(), "{addr}".to_string()]);

        let deadline = Deadline::after(Duration::from_secs(60));
        let program = program(Kind::Foreign(words));
        let server = Launch::new(&program, deadline).start()?;
        let served = traced(&server, executable);
        serve(&server, served, rounds, deadline)?;
        // The tool writes its report when the program has ended.
        let _ = kill(served, Signal::SIGTERM);
        let _ = server.wait(deadline);
        fs::read_to_string(report).map_err(|it| Stop::skipped(format!("no report: {it}")))
    }

    /// The process that runs the reactor itself: strace starts it as a child, valgrind is it.
    fn traced(server: &Server, executable: &Path) -> Pid {
        let executable = executable
            .canonicalize()
            .unwrap_or(executable.to_path_buf());
        let processes = server.processes().into_iter();
        let mut running = processes.filter(|it| {
            let link = fs::read_link(format!("/proc/{}/exe", it.pid));
            link.is_ok_and(|it| it == executable)
        });
        running.next().map_or(server.pid(), |it| it.pid)
    }

    /// In each round all clients send, and then all read. The reactor is stopped meanwhile, so
    /// that every round is one turn of its loop however the machine's processors are shared.
    fn serve(server: &Server, served: Pid, rounds: usize, deadline: Deadline) -> Result {
        let connect = |_| Client::connect(server.address(), deadline);
        let mut clients = (0..ACTIVE).map(connect).collect::<Result<Vec<_>>>()?;
        for client in &mut clients {
            client.exchange(&MESSAGE)?;
        }
        for _ in 0..rounds {
            let _ = kill(served, Signal::SIGSTOP);
            let stopped = deadline.until(|| is_stopped(served).then_some(()));
            stopped.ok_or_else(|| Stop::skipped("the reactor does not stop"))?;
            for client in &mut clients {
                client.send(&MESSAGE)?;
            }
            let _ = kill(served, Signal::SIGCONT);
            for client in &mut clients {
                client.expect(&MESSAGE)?;
            }
        }
        Ok(())
    }

    fn is_stopped(process: Pid) -> bool {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
        state.is_some_and(|it| it.starts_with(['T', 't']))
    }

    fn bytes(executable: &Path) -> Result<f64> {
        let threads = executable.ends_with("echo-threads");
        let idle = if threads { IDLE_THREADS } else { IDLE };
        let needed = ORDINARY + idle as u64;
        let _held = budget::hold(needed)?;
        let deadline = Deadline::after(Duration::from_secs(60));
        let program = program(Kind::Ours(executable.to_path_buf()));
        let launch = Launch::new(&program, deadline).descriptors(needed);
        let server = launch.start()?;
        let mut first = Client::connect(server.address(), deadline)?;
        first.exchange(&MESSAGE)?;
        let before = pss(&server)?;
        let mut clients = Vec::new();
        for _ in 0..idle {
            clients.push(Client::connect(server.address(), deadline)?);
        }
        // They are accepted in order: when the last one is served, all are there.
        clients
            .last_mut()
            .unwrap_or(&mut first)
            .exchange(&MESSAGE)?;
        Ok((pss(&server)? - before) / idle as f64)
    }

    /// The server's share of memory (Pss, proc_pid_smaps(5)), in bytes.
    fn pss(server: &Server) -> Result<f64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", server.pid()));
        let rollup = rollup.map_err(|_| Stop::skipped("needs /proc/PID/smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kibibytes = number(line.and_then(|it| it.split_whitespace().next()), &rollup)?;
        Ok(kibibytes * 1024.0)
    }

    fn program(kind: Kind) -> Program {
        let traits: Option<Traits> = CHAPTERS
            .iter()
            .find(|chapter| chapter.binary == REACTOR)
            .map(|chapter| chapter.traits);
        Program {
            name: REACTOR.to_string(),
            kind,
            traits: traits.unwrap_or(grade::catalog::ECHO),
        }
    }
}
