//! Chapter 3: the echo server on the reactor.
//!
//! The loop of this chapter's library waits and dispatches; what is left here is what an
//! echo server does with a newcomer, with data, and with room to write.

use std::{
    cell::RefCell,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    rc::Rc,
    time::Duration,
};

use anyhow::Context;
use ch03_reactor::{Handler, Interest, Reactor, Token};
use clap::Parser;
use socket2::SockRef;

/// The most that one read takes. One buffer serves all connections, as one reads at a time.
const BUFFER_SIZE: usize = 64 * 1024;
type Buffer = Rc<RefCell<Vec<u8>>>;

/// How long the listener rests when no descriptor is left for a newcomer.
const REST: Duration = Duration::from_secs(1);

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

fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    SockRef::from(&listener).listen(1024)?; // std lets only 128 newcomers wait
    listener.set_nonblocking(true)?;
    let mut reactor = Reactor::new().context("cannot create the event loop")?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    let buffer = Rc::new(RefCell::new(vec![0; BUFFER_SIZE]));
    let mut full = false;
    reactor.add_reader(listener, move |reactor, token, listener| {
        let accepted = accept_all(reactor, listener, &buffer);
        if let Err(error) = &accepted {
            if !full {
                let _ = writeln!(io::stderr(), "cannot accept for now: {error}");
            }
            reactor.set_interest(token, Interest::None)?;
            rest(reactor, token);
        }
        full = accepted.is_err();
        Ok(())
    })?;
    reactor.run().context("the event loop failed")
}

/// Empties the kernel's queue of newcomers. An error says that no more can be had for now.
fn accept_all(reactor: &mut Reactor, listener: &TcpListener, buffer: &Buffer) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?; // Linux does not inherit it from the listener
                let connection = Connection {
                    peer,
                    buffer: Rc::clone(buffer),
                    pending: Box::default(),
                    sent: 0,
                };
                reactor.add(stream, Interest::Read, connection)?;
                let _ = writeln!(io::stdout(), "Client {peer} connected");
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return Ok(()),
                ErrorKind::ConnectionAborted => {} // this client has left the queue again
                _ => return Err(error),            // no descriptor or no memory is left
            },
        }
    }
}

/// Lets the listener sleep for a while. Newcomers wait in the kernel's queue; asking for
/// them at once, again and again, would keep the processor busy and help nobody.
fn rest(reactor: &mut Reactor, listener: Token) {
    reactor.add_timer(REST, move |reactor| {
        if reactor.set_interest(listener, Interest::Read).is_err() {
            rest(reactor, listener);
        }
    });
}

/// One client, and what it has not taken yet.
struct Connection {
    peer: SocketAddr,
    buffer: Buffer,
    pending: Box<[u8]>,
    sent: usize, // how much of it has gone out
}

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

/// Writes what the socket takes now, which may be less than all, or nothing.
fn send(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
