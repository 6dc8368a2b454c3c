// ANCHOR: all
// ANCHOR: docs
//! Chapter 3: the echo server on the reactor.
//!
//! The loop of this chapter's library waits and dispatches; what is left here is what an
//! echo server does with a newcomer, with data, and with room to write.

use std::{
    cell::RefCell,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    rc::Rc,
};

use anyhow::Context;
use ch03_reactor::{Handler, Interest, Reactor, Token};
use clap::Parser;
use socket2::SockRef;
// ANCHOR_END: docs

// ANCHOR: arguments
/// The most that one read takes. One buffer serves all connections, as one reads at a time.
const BUFFER_SIZE: usize = 64 * 1024;

/// Echo to any number of clients: an event loop and its handlers
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
// ANCHOR_END: arguments

// ANCHOR: main
fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    SockRef::from(&listener).listen(1024)?; // std lets only 128 newcomers wait
    let mut reactor = Reactor::new().context("cannot create the event loop")?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    let buffer = Rc::new(RefCell::new(vec![0; BUFFER_SIZE]));
    reactor.add_listener(listener, move |reactor, stream, peer| {
        let connection = Connection {
            peer,
            buffer: Rc::clone(&buffer),
            pending: Box::default(),
            sent: 0,
        };
        reactor.add(stream, Interest::Read, connection)?;
        let _ = writeln!(io::stdout(), "Client {peer} connected");
        Ok(())
    })?;
    reactor.run().context("the event loop failed")
}
// ANCHOR_END: main

// ANCHOR: connection
/// One client, and what it has not taken yet.
struct Connection {
    peer: SocketAddr,
    buffer: Rc<RefCell<Vec<u8>>>,
    pending: Box<[u8]>,
    sent: usize, // how much of it has gone out
}
// ANCHOR_END: connection

// ANCHOR: readable
impl Handler<TcpStream> for Connection {
    fn readable(
        &mut self,
        reactor: &mut Reactor,
        me: Token,
        mut stream: &TcpStream,
    ) -> io::Result<()> {
        let mut buffer = self.buffer.borrow_mut();
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()), // a hint only
            result => result?,
        };
        if count == 0 {
            // Nothing is pending, or we would not be reading: the client has heard it all.
            let _ = writeln!(io::stdout(), "Client {} closed the connection", self.peer);
            reactor.remove(me);
            return Ok(());
        }
        let sent = send(stream, &buffer[..count])?;
        if sent < count {
            // The client is slow. Keep the rest, and read no more before that has gone out:
            // the high-water mark is one read, and TCP holds the sender back.
            self.pending = buffer[sent..count].into();
            self.sent = 0;
            reactor.set_interest(me, Interest::Write)?;
        }
        Ok(())
    }
    // ANCHOR_END: readable

    // ANCHOR: writable
    fn writable(&mut self, reactor: &mut Reactor, me: Token, stream: &TcpStream) -> io::Result<()> {
        self.sent += send(stream, &self.pending[self.sent..])?;
        if self.sent == self.pending.len() {
            self.pending = Box::default(); // gives the memory back
            reactor.set_interest(me, Interest::Read)?;
        }
        Ok(())
    }

    fn failed(&mut self, _: &mut Reactor, error: io::Error) {
        let _ = writeln!(io::stderr(), "Client {}: {error}", self.peer);
    }
}
// ANCHOR_END: writable

// ANCHOR: send
/// Writes what the socket takes now, which may be less than all, or nothing.
fn send(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
// ANCHOR_END: send
// ANCHOR_END: all
