//! Servers of several processes: what parent and children owe each other, and
//! their clients.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, geteuid};

use crate::bytes::count;
use crate::catalog::{Clients, Model, Traits};
use crate::check::{Case, Check, During, Failure, ORDINARY, Result, Stop};
use crate::checks::crowd::gather;
use crate::checks::startup::{refused, require};
use crate::client::{Client, STALL};
use crate::job::{Job, Limits};
use crate::proc::{self, Sockets};
use crate::program::Lease;
use crate::server::{Launch, Server};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "each of several clients is greeted by a process of its own",
        cause: "the greeting is made in the parent, or one process serves several clients",
        section: "ch04-fork/two-returns.md#two-returns",
        descriptors: ORDINARY,
        applies: Traits::forks,
        run: greetings,
    },
    Check {
        name: "50 clients leave no zombie",
        cause: "nobody waits for the children that have ended, or only when the next client comes",
        section: "ch04-fork/reaping.md#reaping",
        descriptors: ORDINARY,
        applies: Traits::forks,
        run: no_zombie,
    },
    Check {
        name: "a child killed by any signal frees its place",
        cause: "only a child that exited is counted as gone (WIFEXITED), not one that a signal \
                killed (WIFSIGNALED); or the wait fails for a signal that the library cannot name",
        section: "ch04-fork/reaping.md#killed-children",
        descriptors: ORDINARY,
        applies: Traits::keeps_forking,
        run: killed,
    },
    Check {
        name: "a stopped child harms nobody else",
        cause: "SIGCHLD comes for a child that stops, too, and the parent then waits for the \
                end of one that has not ended, or counts it as gone",
        section: "ch04-fork/reaping.md#killed-children",
        descriptors: ORDINARY,
        applies: Traits::forks,
        run: stopped,
    },
    Check {
        name: "a client that leaves sees its end at once, though others stay",
        cause: "the parent, or a child that was forked later, has a copy of the socket and keeps \
                it open: the end of the stream is sent when the last copy is closed",
        section: "ch04-fork/descriptors.md#descriptors",
        descriptors: ORDINARY,
        applies: Traits::forks,
        run: leavers,
    },
    Check {
        name: "no process holds a socket that is another one's business",
        cause: "fork copies every descriptor, and parent and child did not each close what is \
                not theirs",
        section: "ch04-fork/descriptors.md#descriptors",
        descriptors: ORDINARY,
        applies: Traits::forks,
        run: own_sockets,
    },
    Check {
        name: "when SIGTERM ends the parent, no child and no listener stays",
        cause: ORPHANS,
        section: "ch04-fork/reaping.md#orphans",
        descriptors: ORDINARY,
        applies: Traits::forks,
        run: |case| parent_ends(case, Signal::SIGTERM),
    },
    Check {
        name: "when SIGINT ends the parent, no child and no listener stays",
        cause: ORPHANS,
        section: "ch04-fork/reaping.md#orphans",
        descriptors: ORDINARY,
        applies: Traits::forks,
        run: |case| parent_ends(case, Signal::SIGINT),
    },
    Check {
        name: "when SIGKILL ends the parent, no child and no listener stays",
        cause: ORPHANS,
        section: "ch04-fork/reaping.md#orphans",
        descriptors: ORDINARY,
        applies: Traits::forks,
        run: |case| parent_ends(case, Signal::SIGKILL),
    },
    Check {
        name: "the client past the limit waits, and is served once another leaves",
        cause: "the limit is not kept, the client is closed instead of left in the backlog, or \
                the end of a child is noticed only by chance",
        section: "ch04-fork/steps.md#the-limit",
        descriptors: ORDINARY,
        applies: |traits| traits.forks() && matches!(traits.clients, Clients::Limit(_)),
        run: next_in_line,
    },
    Check {
        name: "a limit of 0, or one that is no number, is refused with a reason",
        cause: "the value is turned into a number without looking, and a server with no process \
                for its clients starts",
        section: "ch04-fork/steps.md#the-limit",
        descriptors: ORDINARY,
        applies: Traits::takes_max_procs,
        run: wrong_limit,
    },
    Check {
        name: "when fork fails, the server says why, serves on and recovers",
        cause: "the -1 of a failed fork (EAGAIN) is not looked at and taken for a child, or ends \
                the server, or is tried again at once and for ever",
        section: "ch04-fork/steps.md#fork-failure",
        descriptors: ORDINARY,
        applies: Traits::keeps_forking,
        run: fork_fails,
    },
    Check {
        name: "a dead worker is replaced although another cannot be forked",
        cause: "while the parent tries to fork one worker it waits for none: the dead one stays \
                a zombie, and a zombie counts against the limit of processes",
        section: "ch04-fork/pools.md#pools",
        descriptors: ORDINARY,
        applies: |traits| traits.model == Model::Prefork,
        run: replaced_in_need,
    },
    Check {
        name: "workers that die young are replaced, but ever more slowly",
        cause: "a dead worker is replaced at once: if each of them fails at its start, the \
                server does nothing but fork",
        section: "ch04-fork/pools.md#pools",
        descriptors: ORDINARY,
        applies: |traits| traits.model == Model::Prefork,
        run: back_off,
    },
];

const ORPHANS: &str = "a child outlives its parent, with its client and perhaps a copy of the \
                       listener: the port stays taken, and connections to it hang";

/// What must be seen at once is seen within this time, on a busy machine too.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Clients at once, where there is no limit.
const SOME: usize = 3;

/// The process that greeted a client: one that lives and belongs to the
/// server, so that a check may send it a signal; and not the parent, unless
/// that serves clients itself.
fn process_of(case: &Case, server: &Server, client: &Client) -> Result<Pid> {
    let pid = Pid::from_raw(client.process.unwrap_or_default());
    let mut processes = server.processes().into_iter();
    let parent_serves = case.traits().model == Model::SharedListener;
    let which = if !processes.any(|process| process.pid == pid && !process.zombie) {
        "no process of the server"
    } else if pid == server.pid() && !parent_serves {
        "the parent"
    } else {
        return Ok(pid);
    };
    Failure::new("looking for the process that the greeting names")
        .expected("a child of the server")
        .came(format!("{pid}, which is {which}"))
        .stop()
}

fn greetings(case: &Case) -> Result {
    proc::available()?;
    case.serve(|server| {
        let clients = gather(case, server, case.at_once(5))?;
        let mut processes = BTreeSet::new();
        for client in &clients {
            let pid = process_of(case, server, client)?;
            if !processes.insert(pid) {
                return Failure::new(format!("greeting {} clients at once", clients.len()))
                    .expected("a process for each")
                    .came(format!("{pid} for two of them"))
                    .stop();
            }
        }
        Ok(())
    })
}

fn no_zombie(case: &Case) -> Result {
    const CLIENTS: usize = 50;
    proc::available()?;
    case.serve(|server| {
        let together = case.at_once(5);
        for _ in 0..CLIENTS.div_ceil(together) {
            drop(gather(case, server, together)?);
        }
        // A child has ended once its process is gone, and until then it is no
        // zombie yet: where there is one for each client, wait for that.
        let parent_only = case.traits().model == Model::ForkPerClient;
        let at_rest = || {
            let processes = server.processes();
            let zombies = processes.iter().any(|process| process.zombie);
            (!zombies && (!parent_only || processes.len() == 1)).then_some(())
        };
        if case.deadline.within(STALL).until(at_rest).is_some() {
            return Ok(());
        }
        let (zombies, living): (Vec<_>, Vec<_>) = server
            .processes()
            .into_iter()
            .partition(|process| process.zombie);
        Failure::new(format!(
            "looking at the processes after {CLIENTS} clients that left"
        ))
        .expected("no zombie, and no child of a client that is gone")
        .came(format!(
            "{} zombies, and {} living besides the parent",
            zombies.len(),
            living.len().saturating_sub(1)
        ))
        .stop()
    })
}

/// A signal by its number: real-time signals have no names.
#[derive(Clone, Copy)]
pub(super) struct Number(pub(super) i32);

impl Number {
    /// Sends it to a process of the server's.
    pub(super) fn send(self, pid: Pid) -> Result {
        // SAFETY: kill(2) reads no memory of ours.
        let result = unsafe { libc::kill(pid.as_raw(), self.0) };
        nix::errno::Errno::result(result)
            .map(drop)
            .during(&format!("sending {self} to process {pid}"))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => write!(f, "{signal}"),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

/// The first signal that a program may use as it likes and that has no name;
/// the very first ones belong to the C library.
pub(super) fn real_time() -> Option<Number> {
    #[cfg(target_os = "linux")]
    return Some(Number(libc::SIGRTMIN()));
    #[cfg(not(target_os = "linux"))]
    None
}

fn killed(case: &Case) -> Result {
    use Signal::{SIGABRT, SIGKILL, SIGSEGV, SIGTERM, SIGUSR1};
    proc::available()?;
    let named = [SIGKILL, SIGTERM, SIGSEGV, SIGABRT, SIGUSR1].map(|signal| Number(signal as i32));
    for signal in named.into_iter().chain(real_time()) {
        let sent = |result: Result| match result {
            Err(Stop::Failed(mut failure)) => {
                let before = format!("{signal} to every child, twice");
                failure.sent.get_or_insert(before);
                Err(Stop::Failed(failure))
            }
            other => other,
        };
        case.serve(|server| sent(killed_by(signal, case, server)))?;
    }
    Ok(())
}

fn killed_by(signal: Number, case: &Case, server: &Server) -> Result {
    let all = case.at_once(SOME);
    for _ in 0..2 {
        let mut clients = gather(case, server, all)?;
        for client in &clients {
            kill(case, server, client, signal)?;
        }
        for client in &mut clients {
            is_closed(
                client,
                STALL,
                "waiting for the end after the death of the child",
            )?;
        }
    }
    let mut clients = gather(case, server, all)?;
    let mut served = clients.iter_mut();
    served.try_for_each(|client| client.exchange(b"alive\n"))
}

/// Sends a signal to the process that serves a client until it has ended.
///
/// Once is not always enough. Rust handles SIGSEGV to tell an overflow of the
/// stack; for any other fault it restores the default and lets the instruction
/// run again. A signal from another process has no such instruction: the first
/// one is lost, the second one kills.
fn kill(case: &Case, server: &Server, client: &Client, signal: Number) -> Result {
    let child = process_of(case, server, client)?;
    let ended = || {
        let lives = lives(server, child);
        if lives {
            // It may have ended since we looked.
            let _ = signal.send(child);
        }
        (!lives).then_some(())
    };
    match case.deadline.within(STALL).until(ended) {
        Some(()) => Ok(()),
        None => Failure::new(format!("sending {signal} to process {child}"))
            .expected("its end")
            .came("it goes on")
            .stop(),
    }
}

fn lives(server: &Server, process: Pid) -> bool {
    let mut processes = server.processes().into_iter();
    processes.any(|each| each.pid == process && !each.zombie)
}

fn is_closed(client: &mut Client, time: Duration, what: &str) -> Result {
    if client.is_closed_within(time) {
        return Ok(());
    }
    Failure::new(what)
        .expected(format!("its end within {} s", time.as_secs()))
        .came("an open connection")
        .stop()
}

fn stopped(case: &Case) -> Result {
    proc::available()?;
    case.serve(|server| {
        let mut clients = gather(case, server, case.at_once(SOME))?;
        let mut sleeper = clients.remove(0);
        let child = process_of(case, server, &sleeper)?;
        Number(Signal::SIGSTOP as i32).send(child)?;
        sleeper.send(b"are you there?\n")?;
        for client in &mut clients {
            client.exchange(b"not stopped\n")?;
        }
        // The stopped child still has its place.
        let mut next = case.stranger(server)?;
        if matches!(case.traits().clients, Clients::Limit(_)) {
            next.expect_silence(MOMENT)?;
        }
        drop(clients);
        next.read_greeting()?;
        next.exchange(b"next\n")?;
        drop(next);
        case.visit(server)?;
        Number(Signal::SIGCONT as i32).send(child)?;
        sleeper.expect(b"are you there?\n")?;
        sleeper.exchange(b"awake\n")
    })
}

fn leavers(case: &Case) -> Result {
    proc::available()?;
    case.serve(|server| {
        // The last one is who a parent may keep; the first is who a child
        // that was forked later may.
        for last_first in [true, false] {
            let mut clients = gather(case, server, case.at_once(SOME))?;
            if last_first {
                clients.reverse();
            }
            while !clients.is_empty() {
                let mut leaver = clients.remove(0);
                let child = process_of(case, server, &leaver)?;
                leaver.finish_sending()?;
                is_closed(
                    &mut leaver,
                    AT_ONCE,
                    "half-closing, and waiting for the end",
                )?;
                if case.traits().model == Model::ForkPerClient {
                    has_ended(case, server, child)?;
                }
                for client in &mut clients {
                    client.exchange(b"still here\n")?;
                }
            }
        }
        Ok(())
    })
}

fn has_ended(case: &Case, server: &Server, child: Pid) -> Result {
    let ended = || (!lives(server, child)).then_some(());
    if case.deadline.within(STALL).until(ended).is_some() {
        return Ok(());
    }
    Failure::new("looking for the child of a client that has left")
        .expected("its end")
        .came(format!("process {child} lives"))
        .stop()
}

fn own_sockets(case: &Case) -> Result {
    proc::available()?;
    case.serve(|server| {
        let clients = gather(case, server, case.at_once(SOME))?;
        // A child may greet first, and close what is not its own then.
        let tidy = || strays(case, server).is_none().then_some(());
        if case.deadline.within(AT_ONCE).until(tidy).is_some() {
            return Ok(());
        }
        Failure::new(format!(
            "looking whose sockets are whose, with {} clients",
            clients.len()
        ))
        .expected("each connection in the one process that serves it")
        .came(strays(case, server).unwrap_or_default())
        .stop()
    })
}

/// A socket of the server's that is open in a process that it does not
/// belong to.
fn strays(case: &Case, server: &Server) -> Option<String> {
    let sockets = Sockets::of_port(server.address().port());
    let (mut listener, mut connections) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for pid in server.processes().into_iter().map(|process| process.pid) {
        let open = proc::open_sockets(pid);
        if !open.is_disjoint(&sockets.listening) && pid != server.pid() {
            listener.push(pid);
        }
        for connection in open.intersection(&sockets.connected) {
            if !seen.insert(*connection) {
                connections.push(pid);
            }
        }
    }
    let pool = case.traits().model != Model::ForkPerClient;
    if let Some(pid) = listener.first()
        && !pool
    {
        return Some(format!("child {pid} has the listener, too"));
    }
    let pid = connections.first()?;
    Some(format!(
        "process {pid} has a connection that another one has"
    ))
}

fn parent_ends(case: &Case, signal: Signal) -> Result {
    proc::available()?;
    // The restart needs the same port, which nobody may take meanwhile.
    let lease = Lease::new(case.traits().protocol).during("looking for a free port")?;
    let launch = || case.launch().port(lease.port());
    let server = launch().start()?;
    nothing_stays(case, &server, signal).map_err(|stop| match stop {
        Stop::Failed(mut failure) => {
            failure.server.extend(server.last_words());
            Stop::Failed(failure)
        }
        skipped @ Stop::Skipped(_) => skipped,
    })?;
    case.serve_with(launch(), |server| case.visit(server))
}

fn nothing_stays(case: &Case, server: &Server, signal: Signal) -> Result {
    let mut clients = gather(case, server, case.at_once(SOME))?;
    // And one whom nobody has accepted, where there is a limit.
    clients.push(case.stranger(server)?);
    server.signal(signal)?;
    let deadline = case.deadline.within(STALL);
    let failure = || Failure::new(format!("sending {signal} to the parent"));
    if deadline.until(|| server.ended()).is_none() {
        return failure().expected("its end").came("it goes on").stop();
    }
    let gone = || server.processes().iter().all(|process| process.zombie);
    if deadline.until(|| gone().then_some(())).is_none() {
        let processes = server.processes().into_iter();
        let living = processes.filter(|process| !process.zombie);
        let living: Vec<_> = living.map(|process| process.pid.to_string()).collect();
        let hears = match Client::connect(server.address(), case.deadline) {
            Ok(_) => "and the port still takes connections",
            Err(_) => "though nobody listens any more",
        };
        return failure()
            .expected("the end of all its children")
            .came(format!("{} live on, {hears}", living.join(" and ")))
            .stop();
    }
    if Client::connect(server.address(), case.deadline).is_ok() {
        return failure()
            .expected("a port that refuses connections")
            .came("a connection, though all processes are gone")
            .stop();
    }
    clients
        .iter_mut()
        .try_for_each(|client| is_closed(client, STALL, "waiting for the end with the parent's"))
}

/// Long enough for a server to do what it should not.
const MOMENT: Duration = Duration::from_millis(300);

fn next_in_line(case: &Case) -> Result {
    let ours = case.traits().takes_max_procs() && case.conventions().is_ok();
    if !ours {
        return next_in_line_of(case, case.launch(), case.at_once(usize::MAX));
    }
    for limit in [1, 2, 5] {
        let launch = case.launch();
        let launch = launch.arguments(&["--max-procs", &limit.to_string()]);
        next_in_line_of(case, launch, limit)?;
    }
    Ok(())
}

fn next_in_line_of(case: &Case, launch: Launch, limit: usize) -> Result {
    case.serve_with(launch, |server| {
        let mut served = gather(case, server, limit)?;
        for _ in 0..2 {
            let mut next = case.stranger(server)?;
            next.expect_silence(MOMENT)?;
            for client in &mut served {
                client.exchange(b"served\n")?;
            }
            let left = Instant::now();
            drop(served.remove(0));
            next.read_greeting()?;
            let waited = left.elapsed();
            if waited > AT_ONCE {
                return Failure::new(format!("waiting while {limit} other clients are served"))
                    .expected("a greeting as soon as one of them has left")
                    .came(format!("a greeting {:.1} s later", waited.as_secs_f32()))
                    .stop();
            }
            next.exchange(b"my turn\n")?;
            served.push(next);
        }
        Ok(())
    })
}

fn wrong_limit(case: &Case) -> Result {
    for limit in ["0", "x", "-1", ""] {
        let flag = format!("--max-procs={limit}");
        let ending = refused(case, &[&flag, "127.0.0.1:0"])?;
        require(
            ending.status.code() == Some(2) && ending.stderr.contains("--max-procs"),
            &flag,
            "exit status 2, and on standard error what is wrong with --max-procs",
            &ending,
        )?;
    }
    Ok(())
}

/// A user whom nobody else is. The kernel counts the processes of a user, not
/// those of a server.
fn nobody_else() -> u32 {
    /// Above those of people and services, below the end of what a container
    /// has by default.
    const FIRST: u64 = 20_000;
    const USERS: u64 = 40_000;
    (FIRST + RandomState::new().hash_one("user") % USERS) as u32
}

/// Runs a server whose user may have three processes, and has one already: the
/// parent may have one child, and the next fork fails with EAGAIN until the
/// other process ends, which is what `body` gets besides.
fn in_need(case: &Case, body: impl FnOnce(&Server, Job) -> Result) -> Result {
    proc::available()?;
    if case.conventions().is_err() {
        return Err(Stop::skipped(
            "runs the program as another user, who may not have the right to read it",
        ));
    }
    if !geteuid().is_root() {
        return Err(Stop::skipped(
            "needs root, to run the server as a user who may have few processes",
        ));
    }
    let user = nobody_else();
    let mut sleeper = Command::new("sleep");
    sleeper.arg("1000");
    let limits = Limits {
        user: Some(user),
        ..Limits::default()
    };
    // A container may have no other user than its root.
    let other = Job::start(sleeper, limits)
        .map_err(|error| Stop::skipped(format!("cannot run a process as user {user}: {error}")))?;
    let launch = case.launch().user(user).processes(3);
    case.serve_with(launch, |server| body(server, other))
}

/// Waits until the server says that fork failed.
fn fork_has_failed(case: &Case, server: &Server) -> Result {
    let reasons = ["fork", "eagain", "temporarily unavailable"];
    let says_why = |line: &str| {
        let line = line.to_lowercase();
        reasons.iter().any(|reason| line.contains(reason))
    };
    let complaint = server.wait_for_complaint(case.deadline.within(STALL), says_why);
    let living = server.processes().into_iter();
    let living = living.filter(|process| !process.zombie).count();
    if living > 2 {
        return Err(Stop::skipped(
            "this system lets a user have more processes than the limit (RLIMIT_NPROC) says",
        ));
    }
    match complaint {
        Some(_) => Ok(()),
        None => Failure::new("waiting for the reason on standard error")
            .sent("one client more than there may be processes")
            .expected("a line about the failed fork")
            .came(format!(
                "{} lines, none of them about it",
                server.complaints()
            ))
            .stop(),
    }
}

/// Service resumes this soon after the cause of the trouble is gone.
const RECOVERY: Duration = Duration::from_secs(5);

fn fork_fails(case: &Case) -> Result {
    in_need(case, |server, other| {
        let mut first = case.client(server)?;
        let mut second = case.stranger(server)?;
        fork_has_failed(case, server)?;
        first.exchange(b"served\n")?;
        does_not_spin(server)?;
        first.exchange(b"still served\n")?;
        let turned_away = second.is_closed_within(AT_ONCE);

        drop(other);
        if turned_away {
            second = newcomer(case, server, RECOVERY)?;
        } else {
            second.read_greeting()?;
        }
        first.exchange(b"served to the end\n")?;
        second.exchange(b"at last\n")?;
        drop((first, second));
        // A child that has not been reaped yet counts as a process still.
        if case.traits().model == Model::ForkPerClient {
            let alone = || (server.processes().len() == 1).then_some(());
            case.deadline.within(STALL).until(alone);
        }
        // Nor does anything stay of the process that never was.
        let mut clients = gather(case, server, case.at_once(2))?;
        let mut all = clients.iter_mut();
        all.try_for_each(|client| client.exchange(b"both of us\n"))
    })
}

/// A client that is served, of those who try one after the other.
fn newcomer(case: &Case, server: &Server, time: Duration) -> Result<Client> {
    let deadline = case.deadline.within(time);
    let served = || {
        let mut client = Client::connect(server.address(), deadline).ok()?;
        client.read_greeting().ok()?;
        Some(client)
    };
    match deadline.until(served) {
        Some(client) => Ok(client),
        None => Failure::new("connecting, now that there may be another process")
            .expected(format!("a greeting within {} s", time.as_secs()))
            .came("none")
            .stop(),
    }
}

fn does_not_spin(server: &Server) -> Result {
    /// An attempt every now and then is well below.
    const WAKEUPS: u64 = 60;
    const CPU: Duration = Duration::from_millis(200);
    let before = server.snapshot();
    std::thread::sleep(Duration::from_secs(1));
    let activity = server.snapshot().since(&before);
    if activity.wakeups <= WAKEUPS && activity.cpu <= CPU {
        return Ok(());
    }
    Failure::new("watching a server that cannot fork")
        .expected("a server that waits before it tries again")
        .came(format!(
            "it woke {} times in a second and ran for {} ms",
            count(activity.wakeups),
            activity.cpu.as_millis()
        ))
        .stop()
}

fn replaced_in_need(case: &Case) -> Result {
    in_need(case, |server, _other| {
        let mut client = case.client(server)?;
        fork_has_failed(case, server)?;
        kill(case, server, &client, Number(Signal::SIGKILL as i32))?;
        is_closed(
            &mut client,
            STALL,
            "waiting for the end after the death of the worker",
        )?;
        let mut next = newcomer(case, server, RECOVERY)?;
        next.exchange(b"served\n")
    })
}

fn back_off(case: &Case) -> Result {
    const TIME: Duration = Duration::from_secs(3);
    /// So many in that time are no storm; without a back-off it is hundreds.
    const FORKS: usize = 25;
    proc::available()?;
    case.serve(|server| {
        let mut workers = BTreeSet::new();
        let end = case.deadline.within(TIME);
        let storm = end.until(|| {
            for worker in server.processes() {
                if worker.parent == server.pid() && !worker.zombie {
                    workers.insert(worker.pid);
                    // It may end just now.
                    let _ = Number(Signal::SIGKILL as i32).send(worker.pid);
                }
            }
            (workers.len() >= FORKS).then_some(())
        });
        let forks = workers.len();
        let failure = Failure::new(format!(
            "killing each worker as soon as it appears, for {} s",
            TIME.as_secs()
        ));
        if storm.is_some() {
            return failure
                .expected(format!("fewer than {FORKS} workers in that time"))
                .came(format!(
                    "{forks}, after {:.1} s",
                    (TIME - end.left()).as_secs_f32()
                ))
                .stop();
        }
        if forks <= case.at_once(SOME) {
            return failure
                .expected("replacements")
                .came(format!("{forks} workers in all"))
                .stop();
        }
        // It may be waiting just now, longer than ever before.
        let mut client = newcomer(case, server, 2 * RECOVERY)?;
        client.exchange(b"peace\n")
    })
}
