//! Wrong on purpose (B14): nobody looks whether fork failed.
//!
//! fork returns 0 in the child and the child's id in the parent. The listing knows these two
//! cases; the third, -1 for a failure, it takes for an id. Its "child" never ends, and for
//! waitpid -1 means any child: here the parent waits for one that serves on, says nothing,
//! and leaves every newcomer hanging. Look at the call of `fork` in `main`.
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
    sys::wait::waitpid,
    unistd::Pid,
};

const BUFFER_SIZE: usize = 64 * 1024;

/// Echo from processes, whether there are any or not (wrong on purpose: B14)
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

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args { address, max_procs } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?; // a client may leave between poll and accept
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    let parent = Pid::this();
    let mut children: Vec<Child> = Vec::new();
    loop {
        let room = children.len() < max_procs as usize;
        let (ended, newcomer) = match wait(&children, room.then_some(&listener)) {
            Err(nix::Error::EINTR) => continue,
            answer => answer.context("poll failed")?,
        };
        let mut each = ended.into_iter();
        children.retain(|child| each.next() != Some(true) || child.reap());
        if !newcomer {
            continue;
        }

        let (connection, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue, // it has left
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
        let _ = writeln!(io::stdout(), "Starting a new child process for {peer}");
        // ANCHOR: fault
        // SAFETY: this process has one thread, so the child may do whatever its parent may.
        match unsafe { libc::fork() } {
            0 => {
                drop((listener, children, lifeline)); // the parent's business only
                serve(connection, parent, held_by_child);
            }
            // The fault: -1 is no process, but the news that there is none.
            pid => children.push(Child {
                pid: Pid::from_raw(pid),
                peer,
                lifeline,
            }),
        }
        // ANCHOR_END: fault
    }
}

/// A child process, and the reading end of a pipe whose writing end it alone holds.
#[cfg(unix)]
struct Child {
    pid: Pid,
    peer: SocketAddr,
    lifeline: PipeReader,
}

/// Sleeps until a child has ended, which the end of its pipe tells, or, if there is room, a
/// newcomer has come: which ones, and whether.
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

#[cfg(unix)]
impl Child {
    /// Reaps a child that has ended. Always false: there is no child any more.
    fn reap(&self) -> bool {
        let Child { pid, peer, .. } = self;
        while waitpid(*pid, None) == Err(nix::Error::EINTR) {}
        let _ = writeln!(io::stdout(), "Process {pid} for {peer} is gone");
        false
    }
}

/// The whole life of a child: greet, echo, exit.
#[cfg(unix)]
fn serve(connection: TcpStream, parent: Pid, _lifeline: PipeWriter) -> ! {
    // No orphan keeps a client: the kernel kills this process when its parent ends.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL);
    let orphan = Pid::parent() != parent; // it has ended before we could ask for that

    let done = if orphan { Ok(()) } else { echo(&connection) };
    if let Err(error) = &done {
        let _ = writeln!(io::stderr(), "Process {}: {error}", process::id());
    }
    // SAFETY: _exit(2) may be called at any time.
    unsafe { libc::_exit(done.is_err().into()) }
}

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

/// Says what the system refuses, and waits: asking again at once would not help.
fn pause(what: &str, error: io::Error) {
    let _ = writeln!(io::stderr(), "{what}: {error}");
    thread::sleep(Duration::from_secs(1));
}

#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("fork(2) needs Unix; on Windows, run this program in WSL")
}
