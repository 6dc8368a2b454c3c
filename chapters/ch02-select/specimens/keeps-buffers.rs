//! Wrong on purpose (B12): a client's buffer outlives the client, and goes to the next one.
//!
//! The listings keep `$buffers[(int) $stream]`, and never unset it. In PHP such a key is used
//! once, and the memory is lost. A descriptor is used again at once: the next client gets the
//! lowest free number, which is that of the one who has left, and before its own bytes those
//! that the other did not read. Look at `main`, where clients leave.
#![cfg_attr(not(unix), allow(unused))]

#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

/// The most that one read takes, and the most that waits for a client: no more is read before.
const BUFFER_SIZE: usize = 16 * 1024;

/// The kernel keeps less than usual for a client, so that bytes wait in this program sooner.
const SEND_BUFFER: usize = 32 * 1024;

/// Echo to many clients, and now and then what another has sent (wrong on purpose: B12)
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
    let mut pending = Pending::new();
    let mut full = false;
    loop {
        let ready = match wait(&listener, full, &clients, &pending) {
            Err(nix::Error::EINTR) => continue,
            answer => answer.context("poll failed")?,
        };
        // ANCHOR: fault
        let before = clients.len();
        let mut each = ready[1..].iter();
        // The fault: who leaves here leaves its entry in `pending` behind.
        clients.retain_mut(|client| match each.next() {
            // Readiness is a hint only: a call that would block has done nothing.
            Some(true) => client
                .serve(&mut pending)
                .unwrap_or_else(|error| error.kind() == ErrorKind::WouldBlock),
            _ => true,
        });
        // ANCHOR_END: fault
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
fn wait(
    listener: &TcpListener,
    full: bool,
    clients: &[Client],
    pending: &Pending,
) -> nix::Result<Vec<bool>> {
    let mut list = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if full {
        list[0].set_events(PollFlags::empty());
    }
    for client in clients {
        let waits = pending
            .get(&client.key())
            .is_some_and(|bytes| !bytes.is_empty());
        let interest = if waits {
            PollFlags::POLLOUT
        } else {
            PollFlags::POLLIN
        };
        list.push(PollFd::new(client.stream.as_fd(), interest));
    }
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
            SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
            clients.push(Client { stream });
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(()),
        Err(error) => Err(error),
    }
}

// ANCHOR: key
/// What the clients have not taken yet, by descriptor.
#[cfg(unix)]
type Pending = HashMap<RawFd, Vec<u8>>;

struct Client {
    stream: TcpStream,
}
// ANCHOR_END: key

#[cfg(unix)]
impl Client {
    fn key(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Reads if nothing is pending, and writes what is. False when the client has left.
    fn serve(&mut self, pending: &mut Pending) -> io::Result<bool> {
        let mine = pending.entry(self.key()).or_default();
        if mine.is_empty() {
            let mut buffer = [0; BUFFER_SIZE];
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(false);
            }
            let sent = send(&self.stream, &buffer[..count])?;
            *mine = buffer[sent..count].to_vec();
        } else {
            let sent = send(&self.stream, mine)?;
            *mine = mine.split_off(sent);
        }
        Ok(true)
    }
}

/// Writes what the socket takes now, which may be nothing.
fn send(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("poll(2) through nix needs Unix; on Windows, run this program in WSL")
}
