// ANCHOR: all
// ANCHOR: about
//! The limited fork server of chapter 4, told of its children's deaths by SIGCHLD.
//!
//! The handler writes a byte into a pipe whose other end the main loop polls, together with
//! the listener: the self-pipe. It turns a signal, which comes at any moment, into an event
//! that waits its turn, and closes the gap between a look at a flag and going to sleep.
#![cfg_attr(not(unix), allow(unused))]
// ANCHOR_END: about

#[cfg(unix)]
use std::os::fd::{AsFd, IntoRawFd};
use std::{
    io::{self, ErrorKind, PipeReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    process,
    sync::atomic::{AtomicI32, Ordering::SeqCst},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};

// ANCHOR: args
/// Echo to each client from a process of its own, and reap with SIGCHLD and a self-pipe
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

// ANCHOR: sleep
#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args { address, max_procs } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?; // a client may leave between poll and accept
    let mut deaths = watch_children().context("cannot watch SIGCHLD")?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    let parent = Pid::this();
    let mut children: Vec<Pid> = Vec::new();
    loop {
        let room = children.len() < max_procs as usize;
        match wait(&deaths, room.then_some(&listener)) {
            Ok(true) => {
                // First the pipe, then the look: a child that dies in between writes again.
                let _ = deaths.read(&mut [0; 64]);
                // Three deaths may be one SIGCHLD, so look at every child.
                children.retain(|&child| is_alive(child));
                continue;
            }
            Ok(false) => {}
            Err(Errno::EINTR) => continue, // SIGCHLD itself: its byte is in the pipe now
            Err(error) => return Err(error).context("poll failed"),
        }
        // ANCHOR_END: sleep

        // ANCHOR: accept-fork
        let (connection, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue, // it has left
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue, // on BSD
            Err(error) => {
                pause("cannot accept", error);
                continue;
            }
        };
        let _ = writeln!(io::stdout(), "Starting a new child process for {peer}");
        // SAFETY: this process has one thread, so the child may do whatever its parent may.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => children.push(child),
            Ok(ForkResult::Child) => {
                drop((listener, deaths));
                serve(connection, parent);
            }
            // Too many processes, or no memory. This client is turned away.
            Err(error) => pause(&format!("Client {peer} refused: cannot fork"), error.into()),
        }
    }
}
// ANCHOR_END: accept-fork

// ANCHOR: wait
/// Sleeps until a child has died (true) or a newcomer has come (false).
#[cfg(unix)]
fn wait(deaths: &PipeReader, listener: Option<&TcpListener>) -> nix::Result<bool> {
    let sources = [Some(deaths.as_fd()), listener.map(AsFd::as_fd)];
    let sources = sources.into_iter().flatten();
    let mut list: Vec<PollFd> = sources
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    poll(&mut list, PollTimeout::NONE)?;
    Ok(list[0].any().unwrap_or(true))
}
// ANCHOR_END: wait

// ANCHOR: handler
/// The writing end of the self-pipe, for the handler.
static DEATHS: AtomicI32 = AtomicI32::new(-1);

#[cfg(unix)]
extern "C" fn on_sigchld(_: i32) {
    let errno = Errno::last_raw(); // the interrupted code may be about to look at it
    // SAFETY: write(2) is async-signal-safe, and the byte outlives the call. If the pipe is
    // full it fails (it does not block); then the loop has enough reason to look already.
    unsafe { libc::write(DEATHS.load(SeqCst), c"".as_ptr().cast(), 1) };
    Errno::set_raw(errno);
}
// ANCHOR_END: handler

// ANCHOR: watch-children
/// Makes the self-pipe. Both ends are non-blocking: the handler must not wait for a full
/// pipe, nor the loop for an empty one.
#[cfg(unix)]
fn watch_children() -> io::Result<PipeReader> {
    let (reader, writer) = io::pipe()?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    DEATHS.store(writer.into_raw_fd(), SeqCst); // it stays open until the process ends

    let handler = SigHandler::Handler(on_sigchld);
    let flags = SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP; // not for a child that stops only
    // SAFETY: the handler does only what is async-signal-safe: write(2), and it keeps errno.
    unsafe {
        sigaction(
            Signal::SIGCHLD,
            &SigAction::new(handler, flags, SigSet::empty()),
        )
    }?;
    // Whoever started us may have blocked SIGCHLD, and a mask is inherited, too.
    SigSet::from(Signal::SIGCHLD).thread_unblock()?;
    Ok(reader)
}
// ANCHOR_END: watch-children

// ANCHOR: is-alive
/// Reaps the child if it has ended.
#[cfg(unix)]
fn is_alive(child: Pid) -> bool {
    let fate = match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) => return true,
        Ok(WaitStatus::Exited(_, code)) => format!("exited with status {code}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
        _ => "is gone".into(), // killed by a real-time signal: nix has no name for those
    };
    let _ = writeln!(io::stdout(), "Process {child} {fate}");
    false
}
// ANCHOR_END: is-alive

// ANCHOR: child
/// The whole life of a child: greet, echo, exit.
#[cfg(unix)]
fn serve(connection: TcpStream, parent: Pid) -> ! {
    // A handler is inherited by fork, and its pipe end with it: this child has no children.
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    // No orphan keeps a client: on Linux the kernel kills this process when its parent ends.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
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
// ANCHOR_END: child

// ANCHOR: echo
fn echo(mut connection: &TcpStream) -> io::Result<()> {
    connection.set_nonblocking(false)?; // BSD and macOS inherit it from the listener
    let greeting = format!("You are connected to process {}\n", process::id());
    connection.write_all(greeting.as_bytes())?;
    let mut buffer = vec![0; 64 * 1024];
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

// ANCHOR: not-unix
#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("fork(2) needs Unix; on Windows, run this program in WSL")
}
// ANCHOR_END: not-unix
// ANCHOR_END: all
