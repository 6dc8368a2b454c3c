//! Wrong on purpose: each source is armed anew after each of its events.
//!
//! polling's default is the oneshot mode: the kernel reports a source once, then no more
//! until it is asked again. Threads that share a poller need that; a single loop pays a system
//! call for it, on every echo. Nothing is lost and no client notices: only counting shows it
//! (`strace -c -p PID`, or `cargo test -p grade --test cost`). Look at the end of `main`.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use polling::{Event, Events, Poller};
use socket2::SockRef;

/// The most that one read takes, and the most that waits for a client: no more is read before.
const BUFFER_SIZE: usize = 64 * 1024;

/// The listener's key; the clients have those above it.
const LISTENER: usize = 0;

/// Echo to any number of clients, with a system call too many (wrong on purpose)
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:1337", value_parser = resolve)]
    address: SocketAddr,
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}

fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    SockRef::from(&listener).listen(1024)?; // std lets only 128 newcomers wait
    listener.set_nonblocking(true)?;
    let poller = Poller::new().context("cannot create the event queue")?;
    // SAFETY: nobody waits any more when `main` drops the listener.
    unsafe { poller.add(&listener, Event::readable(LISTENER))? };
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    let mut clients: HashMap<usize, Client> = HashMap::new();
    let mut last_key = LISTENER;
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut events = Events::new();
    loop {
        events.clear();
        poller.wait(&mut events, None).context("waiting failed")?;
        for event in events.iter() {
            let Some(client) = clients.get_mut(&event.key) else {
                last_key += 1;
                if let Err(error) = accept(&listener, &poller, &mut clients, last_key) {
                    let _ = writeln!(io::stderr(), "cannot accept for now: {error}");
                    thread::sleep(Duration::from_secs(1));
                }
                poller.modify(&listener, Event::readable(LISTENER))?;
                continue;
            };
            // ANCHOR: fault
            // Readiness is a hint only: a call that would block has done nothing.
            let served = client.serve(&mut buffer);
            if !served.unwrap_or_else(|error| error.kind() == ErrorKind::WouldBlock) {
                poller.delete(&client.stream)?;
                clients.remove(&event.key);
                continue;
            }
            // The fault: in level mode this is needed only when the interest has changed.
            let writes = !client.pending.is_empty();
            poller.modify(&client.stream, Event::new(event.key, !writes, writes))?;
        }
        // ANCHOR_END: fault
    }
}

/// Takes a newcomer, if one is there. An error says that no more can be had for now.
fn accept(
    listener: &TcpListener,
    poller: &Poller,
    clients: &mut HashMap<usize, Client>,
    key: usize,
) -> io::Result<()> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            // SAFETY: `main` deletes it before it is dropped.
            unsafe { poller.add(&stream, Event::readable(key))? };
            let pending = Vec::new();
            clients.insert(key, Client { stream, pending });
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
    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        if self.pending.is_empty() {
            let count = self.stream.read(buffer)?;
            let sent = self.stream.write(&buffer[..count]).or_else(nothing_yet)?;
            self.pending = buffer[sent..count].to_vec();
            return Ok(count > 0);
        }
        let sent = self.stream.write(&self.pending).or_else(nothing_yet)?;
        self.pending.drain(..sent);
        Ok(true)
    }
}

fn nothing_yet(error: io::Error) -> io::Result<usize> {
    match error.kind() {
        ErrorKind::WouldBlock => Ok(0),
        _ => Err(error),
    }
}
