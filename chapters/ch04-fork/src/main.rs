// ANCHOR: all
// ANCHOR: intro
//! Chapter 4: an echo server with a process for each client, and a limit.
//!
//! The parent accepts and forks; each child serves its one client with the plain loop of
//! chapter 1. While MAX_PROCS children live the parent does not accept: the next client
//! waits in the kernel's queue until one of them ends.
#![cfg_attr(not(unix), allow(unused))]

#[cfg(unix)]
use std::os::fd::AsFd;
use std::{
    io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    process, thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, fork},
};

const BUFFER_SIZE: usize = 64 * 1024;
// ANCHOR_END: intro

// ANCHOR: args
/// Echo to each client from a process of its own: fork, a limit, and reaping
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:1234", value_parser = resolve)]
    address: SocketAddr,
    /// How many clients are served at the same time
    #[arg(long, value_name = "MAX_PROCS", default_value = "2", value_parser = clap::value_parser!(u32).range(1..))]
    max_procs: u32,
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}
// ANCHOR_END: args

// ANCHOR: listen
#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args { address, max_procs } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?; // a client may leave between poll and accept
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);
    // ANCHOR_END: listen

    // ANCHOR: turn
    let parent = Pid::this();
    let mut children: Vec<Child> = Vec::new();
    loop {
        let room = children.len() < max_procs as usize;
        let (ended, newcomer) = match wait(&children, room.then_some(&listener)) {
            Err(nix::Error::EINTR) => continue,
            answer => answer.context("poll failed")?,
        };
        let mut each = ended.into_iter();
        for child in children.extract_if(.., |_| each.next() == Some(true)) {
            child.reap();
        }
        if !newcomer {
            continue;
        }
        // ANCHOR_END: turn

        // ANCHOR: accept
        let (connection, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue, // it has left
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue, // on BSD
            Err(error) => {
                pause("cannot accept", error);
                continue;
            }
        };
        let (lifeline, held_by_child) = match io::pipe() {
            Ok(ends) => ends,
            Err(error) => {
                pause(&format!("Client {peer} refused: no pipe"), error);
                continue;
            }
        };
        // ANCHOR_END: accept
        // ANCHOR: fork
        let _ = writeln!(io::stdout(), "Starting a new child process for {peer}");
        // SAFETY: this process has one thread, so the child, a copy of it, finds no lock
        // held by a thread that was not copied, and may call whatever it likes (fork(2)).
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child: pid }) => {
                children.push(Child {
                    pid,
                    peer,
                    lifeline,
                });
            }
            Ok(ForkResult::Child) => {
                // The parent's own, above all the listener: it would keep the port after its end.
                drop((listener, children, lifeline));
                serve(connection, parent, held_by_child);
            }
            // Too many processes, or no memory. This client is turned away.
            Err(error) => pause(&format!("Client {peer} refused: cannot fork"), error.into()),
        }
        // The parent's copies of the connection and of the child's pipe end are closed here:
        // else the client would not see its end, nor we the child's.
    }
}
// ANCHOR_END: fork

// ANCHOR: child
/// A child process, and the reading end of a pipe whose writing end it alone holds.
#[cfg(unix)]
struct Child {
    pid: Pid,
    peer: SocketAddr,
    lifeline: PipeReader,
}
// ANCHOR_END: child

// ANCHOR: wait
/// Sleeps until a child has ended or, while there is room, a newcomer has come: tells which
/// children have ended, and whether there is a newcomer. The kernel closes the descriptors of
/// a process that ends, however it ends: the end of its pipe is the news, without a signal.
#[cfg(unix)]
fn wait(children: &[Child], listener: Option<&TcpListener>) -> nix::Result<(Vec<bool>, bool)> {
    let lifelines = children.iter().map(|child| child.lifeline.as_fd());
    let sources = lifelines.chain(listener.map(AsFd::as_fd));
    let mut list: Vec<PollFd> = sources
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    poll(&mut list, PollTimeout::NONE)?;

    let mut ready = list.iter().map(|entry| entry.any().unwrap_or(true));
    let ended = ready.by_ref().take(children.len()).collect();
    Ok((ended, ready.next().unwrap_or(false)))
}
// ANCHOR_END: wait

// ANCHOR: reap
#[cfg(unix)]
impl Child {
    /// Takes the exit status of a child that has ended. Without that it would stay in the
    /// process table as a zombie.
    fn reap(&self) {
        let Child { pid, peer, .. } = self;
        let status = loop {
            match waitpid(*pid, None) {
                Err(nix::Error::EINTR) => {}
                status => break status,
            }
        };
        let fate = match status {
            Ok(WaitStatus::Exited(_, code)) => format!("exited with status {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
            // nix has no names for real-time signals; and whoever started us with SIGCHLD
            // ignored has the kernel reap our children. In any case this one is gone.
            _ => "is gone".into(),
        };
        let _ = writeln!(io::stdout(), "Process {pid} for {peer} {fate}");
    }
}
// ANCHOR_END: reap

// ANCHOR: serve
/// The whole life of a child: greet, echo, exit.
#[cfg(unix)]
fn serve(connection: TcpStream, parent: Pid, _lifeline: PipeWriter) -> ! {
    // No orphan keeps a client: on Linux the kernel kills this process when its parent ends.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL);
    let orphan = Pid::parent() != parent; // it has ended before we could ask for that

    let done = if orphan { Ok(()) } else { echo(&connection) };
    if let Err(error) = &done {
        // Other processes print here, too: a line is theirs or ours if it is one write(2).
        let line = format!("Process {}: {error}\n", process::id());
        let _ = io::stderr().write_all(line.as_bytes());
    }
    // SAFETY: _exit(2) may be called at any time. Unlike `process::exit` it does not run the
    // clean-up that the parent has registered for its own end, and the child has a copy of.
    unsafe { libc::_exit(done.is_err().into()) }
}
// ANCHOR_END: serve

// ANCHOR: echo
fn echo(mut connection: &TcpStream) -> io::Result<()> {
    connection.set_nonblocking(false)?; // BSD and macOS inherit it from the listener
    let greeting = format!("You are connected to process {}\n", process::id());
    connection.write_all(greeting.as_bytes())?;
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => connection.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
// ANCHOR_END: echo

// ANCHOR: pause
/// Says what the system refuses, and waits: asking again at once would not help.
fn pause(what: &str, error: io::Error) {
    let _ = io::stderr().write_all(format!("{what}: {error}\n").as_bytes());
    thread::sleep(Duration::from_secs(1));
}
// ANCHOR_END: pause

// ANCHOR: elsewhere
#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("fork(2) needs Unix; on Windows, run this program in WSL")
}
// ANCHOR_END: elsewhere
// ANCHOR_END: all
