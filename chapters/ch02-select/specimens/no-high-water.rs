//! Wrong on purpose (B17): what waits for a client has no limit.
//!
//! The listing appends to `$buffers[$key]` whatever a client sends, also while it reads
//! nothing. One that sends for ever grows the server until the system kills it, and then
//! everybody is gone. (PHP's `substr` also moves all that is left after each write, so that
//! the time grows with the square of the length.) Look at `wait`.
#![cfg_attr(not(unix), allow(unused))]

#[cfg(unix)]
use std::os::fd::AsFd;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The most that one read takes.
const BUFFER_SIZE: usize = 16 * 1024;

/// Echo to many clients, whatever it costs (wrong on purpose: B17)
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
            answer => answer.context("poll failed")?,
        };
        let before = clients.len();
        let mut each = ready[1..].iter();
        clients.retain_mut(|client| each.next() != Some(&true) || client.serve().unwrap_or(false));
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
    let mut list = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if full {
        list[0].set_events(PollFlags::empty());
    }
    // ANCHOR: fault
    for client in clients {
        let mut interest = PollFlags::empty();
        // The fault: however much is pending, more is read. TCP would hold the sender back.
        interest.set(PollFlags::POLLIN, !client.ended);
        interest.set(PollFlags::POLLOUT, !client.pending.is_empty());
        list.push(PollFd::new(client.stream.as_fd(), interest));
    }
    // ANCHOR_END: fault
    poll(&mut list, PollTimeout::NONE)?;
    Ok(list
        .iter()
        .map(|entry| entry.any() != Some(false))
        .collect())
}

/// Takes a newcomer, if one is there. An error says that no more can be had for now.
fn accept(listener: &TcpListener, clients: &mut Vec<Client>) -> io::Result<()> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            clients.push(Client {
                stream,
                pending: VecDeque::new(),
                ended: false,
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
    pending: VecDeque<Vec<u8>>,
    ended: bool, // it has said everything, but perhaps not yet heard everything
}

impl Client {
    /// Reads and writes what can be. False when the client has left.
    fn serve(&mut self) -> io::Result<bool> {
        let mut buffer = [0; BUFFER_SIZE];
        if !self.ended
            && let Some(count) = now(self.stream.read(&mut buffer))?
        {
            self.ended = count == 0;
            self.pending.push_back(buffer[..count].to_vec());
        }
        while let Some(first) = self.pending.pop_front() {
            let sent = now(self.stream.write(&first))?.unwrap_or(0);
            if sent < first.len() {
                self.pending.push_front(first[sent..].to_vec());
                break;
            }
        }
        Ok(!self.ended || !self.pending.is_empty())
    }
}

/// Readiness is a hint only: a call that would block is no error, and does nothing.
fn now(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("poll(2) through nix needs Unix; on Windows, run this program in WSL")
}
