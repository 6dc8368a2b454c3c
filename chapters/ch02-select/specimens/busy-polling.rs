//! Wrong on purpose (B7): a server that never sleeps, though nobody says anything.
//!
//! The listing gives stream_select a timeout of 500 microseconds, and asks of every client
//! whether it can be written, which is nearly always so. All goes well, and one idle client
//! costs tens of thousands of system calls a second: see `top`, or `strace -c -p PID`.
//! Look at `wait`.
#![cfg_attr(not(unix), allow(unused))]

#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::sys::{
    select::{FD_SETSIZE, FdSet, select},
    time::{TimeVal, TimeValLike},
};

/// The most that one read takes, and the most that waits for a client: no more is read before.
const BUFFER_SIZE: usize = 16 * 1024;

/// Echo to many clients, and never sleep (wrong on purpose: B7)
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:9000", value_parser = resolve)]
    address: SocketAddr,
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    let mut clients: Vec<Client> = Vec::new();
    let mut full = false;
    loop {
        let ready = match wait(&listener, full, &clients) {
            Err(nix::Error::EINTR) => continue,
            answer => answer.context("select failed")?,
        };
        let before = clients.len();
        let mut each = ready[1..].iter();
        clients.retain_mut(|client| match each.next() {
            // Readiness is a hint only: a call that would block has done nothing.
            Some(true) => client
                .serve()
                .unwrap_or_else(|error| error.kind() == ErrorKind::WouldBlock),
            _ => true,
        });
        full &= clients.len() == before; // a client that leaves makes room
        if ready[0]
            && let Err(error) = accept(&listener, &mut clients)
        {
            let _ = writeln!(io::stderr(), "cannot accept for now: {error}");
            full = !clients.is_empty();
            if !full {
                thread::sleep(Duration::from_secs(1)); // others hold the descriptors
            }
        }
    }
}

/// Which are ready for what they wait for, the listener first? A full server leaves it alone.
#[cfg(unix)]
fn wait(listener: &TcpListener, full: bool, clients: &[Client]) -> nix::Result<Vec<bool>> {
    let (mut readable, mut writable) = (FdSet::new(), FdSet::new());
    if !full {
        readable.insert(listener.as_fd());
    }
    // ANCHOR: fault
    for client in clients {
        if client.pending.is_empty() {
            readable.insert(client.stream.as_fd());
        }
        // The fault: an idle socket can always be written, so with a client this never sleeps,
        writable.insert(client.stream.as_fd());
    }
    // and without one it wakes 2,000 times a second to see that nothing has happened.
    let mut timeout = TimeVal::microseconds(500);
    select(None, &mut readable, &mut writable, None, &mut timeout)?;
    // ANCHOR_END: fault

    let clients = clients.iter().map(|client| client.stream.as_fd());
    let all = [listener.as_fd()].into_iter().chain(clients);
    Ok(all
        .map(|fd| readable.contains(fd) || writable.contains(fd))
        .collect())
}

/// Takes a newcomer, if one is there. An error says that no more can be had for now.
#[cfg(unix)]
fn accept(listener: &TcpListener, clients: &mut Vec<Client>) -> io::Result<()> {
    match listener.accept() {
        Ok((stream, peer)) if stream.as_raw_fd() >= FD_SETSIZE as RawFd => {
            writeln!(io::stderr(), "Client {peer} refused: select is full").or(Ok(()))
        }
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            clients.push(Client {
                stream,
                pending: Vec::new(),
            });
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(()),
        Err(error) => Err(error),
    }
}

/// A client, and what it has not taken yet.
struct Client {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Client {
    /// Reads if nothing is pending, and writes what is. False when the client has left.
    fn serve(&mut self) -> io::Result<bool> {
        let mut buffer = [0; BUFFER_SIZE];
        if self.pending.is_empty() {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(false);
            }
            self.pending = buffer[..count].to_vec();
        }
        let sent = self.stream.write(&self.pending)?;
        self.pending = self.pending.split_off(sent);
        Ok(true)
    }
}

#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("select(2) through nix needs Unix; on Windows, run this program in WSL")
}
