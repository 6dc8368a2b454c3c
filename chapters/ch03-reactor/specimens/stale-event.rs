//! Wrong on purpose (B10): an event is delivered to a client that has just been removed.
//!
//! The original loop asks what is readable and what is writable, calls all the read handlers
//! and then all the write handlers, by descriptor. When a read handler has closed its
//! stream, the write handler gets it all the same: a TypeError ends the server, and with it
//! everybody's connection. One client is enough: bytes wait for it, and it resets the
//! connection.
//! Look at `main`, where it writes.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use polling::{Event, Events, PollMode, Poller};
use socket2::SockRef;

/// The most that one read takes, and the most that waits for a client: no more is read before.
const BUFFER_SIZE: usize = 16 * 1024;

/// The kernel keeps less than usual for a client, so that bytes wait in this program sooner.
const SEND_BUFFER: usize = 32 * 1024;

/// The listener's key; the clients have those above it.
const LISTENER: usize = 0;

/// Echo to any number of clients, until one is removed too early (wrong on purpose: B10)
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
    listener.set_nonblocking(true)?;
    let poller = Poller::new().context("cannot create the event queue")?;
    // SAFETY: nobody waits any more when `main` drops the listener.
    unsafe { poller.add_with_mode(&listener, Event::readable(LISTENER), PollMode::Level)? };
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    let mut clients: HashMap<usize, Client> = HashMap::new();
    let mut last_key = LISTENER;
    let mut events = Events::new();
    let mut full = false;
    loop {
        events.clear();
        poller.wait(&mut events, None).context("waiting failed")?;

        // ANCHOR: fault
        // Two lists, as from stream_select. (A reset makes a socket readable and writable.)
        let readable = events.iter().filter(|event| event.readable);
        let readable: Vec<usize> = readable.map(|event| event.key).collect();
        let writable = events.iter().filter(|event| event.writable);
        let writable = writable.map(|event| event.key);
        let waits = |key: &usize| clients.get(key).is_some_and(|it| !it.pending.is_empty());
        let writable: Vec<usize> = writable.filter(waits).collect();

        let before = clients.len();
        let newcomer = readable.contains(&LISTENER);
        for key in readable {
            if let Some(client) = clients.get_mut(&key) {
                let result = client.read();
                settle(&poller, &mut clients, key, result)?;
            }
        }
        for key in writable {
            // The fault: a read handler may have removed this client a moment ago.
            let client = clients.get_mut(&key).expect("a client that can be written");
            let result = client.write();
            settle(&poller, &mut clients, key, result)?;
        }
        // ANCHOR_END: fault
        if full && clients.len() < before {
            full = false; // a client that leaves makes room
            poller.modify_with_mode(&listener, Event::readable(LISTENER), PollMode::Level)?;
        }
        if newcomer && let Err(error) = accept(&listener, &poller, &mut clients, last_key + 1) {
            let _ = writeln!(io::stderr(), "cannot accept for now: {error}");
            if clients.is_empty() {
                thread::sleep(Duration::from_secs(1)); // others hold the descriptors
            } else {
                full = true;
                poller.modify_with_mode(&listener, Event::none(LISTENER), PollMode::Level)?;
            }
        }
        last_key += usize::from(newcomer);
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
            SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
            // SAFETY: `settle` deletes it before it is dropped.
            unsafe { poller.add_with_mode(&stream, Event::readable(key), PollMode::Level)? };
            let pending = Vec::new();
            clients.insert(key, Client { stream, pending });
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(()),
        Err(error) => Err(error),
    }
}

/// Watches for what a client waits for after a call of its handler, or removes it.
fn settle(
    poller: &Poller,
    clients: &mut HashMap<usize, Client>,
    key: usize,
    result: io::Result<bool>,
) -> io::Result<()> {
    let Some(client) = clients.get(&key) else {
        return Ok(());
    };
    // Readiness is a hint only: a call that would block has done nothing.
    if result.unwrap_or_else(|error| error.kind() == ErrorKind::WouldBlock) {
        let writes = !client.pending.is_empty();
        let interest = Event::new(key, !writes, writes);
        return poller.modify_with_mode(&client.stream, interest, PollMode::Level);
    }
    poller.delete(&client.stream)?;
    clients.remove(&key);
    Ok(())
}

/// A client, and what it has not taken yet.
struct Client {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Client {
    /// The read handler. False when the client has left.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; BUFFER_SIZE];
        let count = self.stream.read(&mut buffer)?;
        self.pending.extend(&buffer[..count]);
        Ok(count > 0 && self.write()?)
    }

    /// The write handler.
    fn write(&mut self) -> io::Result<bool> {
        let sent = self.stream.write(&self.pending)?;
        self.pending = self.pending.split_off(sent);
        Ok(true)
    }
}
