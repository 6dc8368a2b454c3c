// ANCHOR: all
// ANCHOR: intro
//! The server of this chapter with poll(2) in place of select(2).
//!
//! A list takes the place of the two sets, so a descriptor's value does not matter. What
//! stays: the list is handed over, and looked through, on every turn.
// ANCHOR_END: intro
#![cfg_attr(not(unix), allow(unused))]

#[cfg(unix)]
use std::os::fd::AsFd;
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

// ANCHOR: buffers
/// The most that one read takes. One buffer serves all clients, one after the other.
const BUFFER_SIZE: usize = 64 * 1024;

/// With so much waiting for a client, we read no more from it: TCP holds it back.
const HIGH_WATER: usize = 64 * 1024;
// ANCHOR_END: buffers

// ANCHOR: arguments
/// Echo to many clients in one process: poll(2), without select's limit
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
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);
    // ANCHOR_END: start

    // ANCHOR: loop
    let mut clients: Vec<Client> = Vec::new();
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut full = false;
    loop {
        let (newcomers, ready) = match wait(&listener, full, &clients) {
            Err(nix::Error::EINTR) => continue, // a signal handler ran: ask again
            answer => answer.context("poll failed")?,
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

/// Sleeps until something can be done. A full server does not ask for newcomers.
#[cfg(unix)]
fn wait(listener: &TcpListener, full: bool, clients: &[Client]) -> nix::Result<Answer> {
    // Unlike select, poll answers in a field of its own; but the list borrows the
    // descriptors, and those change on every turn.
    let mut list = Vec::with_capacity(1 + clients.len());
    let newcomers = if full {
        PollFlags::empty()
    } else {
        PollFlags::POLLIN
    };
    list.push(PollFd::new(listener.as_fd(), newcomers));
    for client in clients {
        let mut interest = PollFlags::empty();
        if !client.ended && client.waiting() < HIGH_WATER {
            interest |= PollFlags::POLLIN;
        }
        // An idle socket is always writable: asked for, it would end every sleep.
        if client.waiting() > 0 {
            interest |= PollFlags::POLLOUT;
        }
        list.push(PollFd::new(client.stream.as_fd(), interest));
    }
    // ANCHOR_END: interest
    // ANCHOR: poll
    let second = PollTimeout::from(1000u16); // then a full server tries accept again
    poll(&mut list, if full { second } else { PollTimeout::NONE })?;

    // Trouble is reported whether it was asked for or not. The next read names it;
    // after the end has been read, only a write does.
    let trouble = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    let mut ready = list.iter().map(|entry| {
        let flags = entry.revents().unwrap_or(trouble);
        let readable = flags.intersects(trouble | PollFlags::POLLIN);
        (readable, flags.intersects(trouble | PollFlags::POLLOUT))
    });
    let newcomers = ready.next().is_some_and(|(readable, _)| readable);
    Ok((newcomers, ready.collect()))
}
// ANCHOR_END: poll

// ANCHOR: accept
/// Empties the kernel's queue of newcomers. An error: nobody can be taken for now.
#[cfg(unix)]
fn accept_all(listener: &TcpListener, clients: &mut Vec<Client>) -> io::Result<()> {
    for tried in 0.. {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?; // on Linux it is not inherited
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
                ErrorKind::ConnectionAborted => {} // some systems: it has left again
                // Linux takes the descriptor first, so perhaps nobody waits.
                _ if tried > 0 => break,
                _ => return Err(error), // mostly: no descriptor, no memory
            },
        }
    }
    Ok(()) // who is left is reported again
}
// ANCHOR_END: accept

// ANCHOR: client
/// A client, and what is still to be sent to it.
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
            // Readiness was only a hint.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
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
    anyhow::bail!("poll(2) through nix needs Unix; on Windows, run this program in WSL")
}
// ANCHOR_END: not-unix
// ANCHOR_END: all
