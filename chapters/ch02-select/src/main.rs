// ANCHOR: all
// ANCHOR: intro
//! Chapter 2: many clients in one process, with select(2).
//!
//! One question covers all sockets, and nothing else may block: what a client does not take
//! yet waits in a queue of its own.
// ANCHOR_END: intro
#![cfg_attr(not(unix), allow(unused))]

#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::sys::select::{FD_SETSIZE, FdSet, select};
#[cfg(unix)]
use nix::sys::time::TimeVal;
use socket2::SockRef;

// ANCHOR: buffers
/// The most that one read takes. One buffer serves all clients: what it holds goes on at once.
const BUFFER_SIZE: usize = 64 * 1024;

/// With so much waiting for a client we read no more from it, and TCP holds the sender back.
const HIGH_WATER: usize = 64 * 1024;
// ANCHOR_END: buffers

// ANCHOR: limit
/// An fd_set has a bit for each descriptor below this, however few of them it holds.
#[cfg(unix)]
const LIMIT: RawFd = FD_SETSIZE as RawFd;
// ANCHOR_END: limit

// ANCHOR: arguments
/// Echo to many clients in one process: select(2), buffers and back-pressure
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:9000", value_parser = resolve)]
    address: SocketAddr,
}
// ANCHOR_END: arguments

// ANCHOR: resolve
fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}
// ANCHOR_END: resolve

// ANCHOR: start
#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    SockRef::from(&listener).listen(1024)?; // std lets only 128 newcomers wait
    listener.set_nonblocking(true)?;
    anyhow::ensure!(listener.as_raw_fd() < LIMIT, "select is full already");
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);
    // ANCHOR_END: start

    // ANCHOR: loop
    let mut clients: Vec<Client> = Vec::new();
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut full = false;
    loop {
        let (newcomers, ready) = match wait(&listener, full, &clients) {
            Err(nix::Error::EINTR) => continue, // a signal came first: the sets say nothing
            answer => answer.context("select failed")?,
        };

        let mut each = ready.into_iter();
        clients.retain_mut(|client| client.serve(each.next(), &mut buffer));

        if newcomers || full {
            let accepted = accept_all(&listener, &mut clients);
            if let (Err(error), false) = (&accepted, full) {
                let _ = writeln!(io::stderr(), "cannot accept for now: {error}");
            }
            full = accepted.is_err();
        }
    }
}
// ANCHOR_END: loop

// ANCHOR: interest
/// Is somebody at the listener, and can each client be read, be written?
type Answer = (bool, Vec<(bool, bool)>);

/// Sleeps until something can be done. A full server leaves newcomers in the kernel's queue.
#[cfg(unix)]
fn wait(listener: &TcpListener, full: bool, clients: &[Client]) -> nix::Result<Answer> {
    // select overwrites its sets with the answer, so each turn fills them anew.
    let (mut readable, mut writable) = (FdSet::new(), FdSet::new());
    if !full {
        readable.insert(listener.as_fd());
    }
    let mut highest = listener.as_raw_fd();
    for client in clients {
        highest = highest.max(client.stream.as_raw_fd());
        if !client.ended && client.waiting() < HIGH_WATER {
            readable.insert(client.stream.as_fd());
        }
        // An idle socket is always writable: ask only while bytes wait, or select never sleeps.
        if client.waiting() > 0 {
            writable.insert(client.stream.as_fd());
        }
    }
    // ANCHOR_END: interest
    // ANCHOR: select
    let mut second = TimeVal::new(1, 0); // after that, a full server asks for newcomers again
    let timeout = full.then_some(&mut second);
    // The first argument is a bound: the kernel looks at the descriptors below it.
    select(highest + 1, &mut readable, &mut writable, None, timeout)?;

    let sockets = clients.iter().map(|client| client.stream.as_fd());
    let ready = sockets.map(|fd| (readable.contains(fd), writable.contains(fd)));
    Ok((readable.contains(listener.as_fd()), ready.collect()))
}
// ANCHOR_END: select

// ANCHOR: accept
/// Empties the kernel's queue of newcomers. An error says that no more can be had for now.
#[cfg(unix)]
fn accept_all(listener: &TcpListener, clients: &mut Vec<Client>) -> io::Result<()> {
    for taken in 0.. {
        match listener.accept() {
            Ok((stream, peer)) if stream.as_raw_fd() >= LIMIT => {
                let _ = writeln!(io::stderr(), "Client {peer} refused: select is full");
            }
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?; // Linux does not inherit it from the listener
                let _ = writeln!(io::stdout(), "Client {peer} connected");
                clients.push(Client {
                    stream,
                    peer,
                    pending: Vec::new(),
                    sent: 0,
                    ended: false,
                });
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => break,
                ErrorKind::ConnectionAborted => {} // this client has left the queue again
                // Linux takes the descriptor before it looks into the queue: perhaps nobody waits.
                _ if taken > 0 => break,
                _ => return Err(error), // mostly: no descriptor or no memory is left
            },
        }
    }
    Ok(()) // who is left is reported again
}
// ANCHOR_END: accept

// ANCHOR: client
/// A client, and what it has not taken yet.
struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    pending: Vec<u8>,
    sent: usize, // how much of it has gone out
    ended: bool, // it has said everything, but perhaps not yet heard everything
}

impl Client {
    fn waiting(&self) -> usize {
        self.pending.len() - self.sent
    }
    // ANCHOR_END: client

    // ANCHOR: serve
    /// Does what the socket is ready for. False when this client needs us no more.
    fn serve(&mut self, ready: Option<(bool, bool)>, buffer: &mut [u8]) -> bool {
        let done = match ready {
            Some((true, _)) if !self.ended => self.receive(buffer),
            Some((_, true)) => self.send(),
            _ => Ok(()),
        };
        let _ = match done {
            Ok(()) if !self.ended || self.waiting() > 0 => return true,
            Ok(()) => writeln!(io::stdout(), "Client {} closed the connection", self.peer),
            Err(error) => writeln!(io::stderr(), "Client {}: {error}", self.peer),
        };
        false
    }
    // ANCHOR_END: serve

    // ANCHOR: receive
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let count = match self.stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()), // a hint only
            result => result?,
        };
        if count == 0 {
            self.ended = true;
            return Ok(()); // what is pending goes out when there is room
        }
        self.pending.drain(..self.sent);
        self.sent = 0;
        self.pending.extend_from_slice(&buffer[..count]);
        self.send()
    }
    // ANCHOR_END: receive

    // ANCHOR: send
    /// Sends what the socket takes now; the offset remembers how much that was.
    fn send(&mut self) -> io::Result<()> {
        match self.stream.write(&self.pending[self.sent..]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            result => self.sent += result?,
        }
        if self.waiting() == 0 {
            (self.pending, self.sent) = (Vec::new(), 0); // gives the memory back
        }
        Ok(())
    }
}
// ANCHOR_END: send

// ANCHOR: not-unix
#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("select(2) through nix needs Unix; on Windows, run this program in WSL")
}
// ANCHOR_END: not-unix
// ANCHOR_END: all
