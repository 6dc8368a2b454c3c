//! Wrong on purpose (B13): the listener is taken for a stream, which has an end.
//!
//! On each turn the original asks `feof` of everything that it watches, the listener among it,
//! and closes what has come to its end. `feof` peeks at what is readable; at a listener where
//! somebody waits the peek fails, and that counts as the end. Here it takes no crowd, but one
//! client who leaves. The process is alive and serves those who are connected; nothing is said,
//! but newcomers are refused, and `ss -lt` has no line for it. Look at `Connection::leave`.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use ch03_reactor::{Handler, Interest, Reactor, Token};
use clap::Parser;

/// The most that one read takes, and the most that waits for a client: no more is read before.
const BUFFER_SIZE: usize = 16 * 1024;

/// Echo to any number of clients, until one leaves (wrong on purpose: B13)
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
    let mut reactor = Reactor::new().context("cannot create the event loop")?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    let mut full = false;
    reactor.add_reader(listener, move |reactor, token, listener| {
        let accepted = accept(reactor, token, listener);
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
    reactor.run().context("the event loop failed")?;
    loop {
        thread::park(); // the original's loop has no end either
    }
}

/// Takes a newcomer, if one is there. An error says that no more can be had for now.
fn accept(reactor: &mut Reactor, token: Token, listener: &TcpListener) -> io::Result<()> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            let connection = Connection {
                listener: token,
                pending: Vec::new(),
            };
            reactor.add(stream, Interest::Read, connection).map(drop)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets the listener sleep for a second: no descriptor is left for a newcomer.
fn rest(reactor: &mut Reactor, listener: Token) {
    reactor.add_timer(Duration::from_secs(1), move |reactor| {
        if reactor.set_interest(listener, Interest::Read).is_err() {
            rest(reactor, listener);
        }
    });
}

/// One client, and what it has not taken yet.
struct Connection {
    listener: Token,
    pending: Vec<u8>,
}

// ANCHOR: fault
impl Connection {
    /// Looks what else has come to its end.
    fn leave(&self, reactor: &mut Reactor) {
        // The fault: a listener has no end. Somebody may wait there now, or later.
        reactor.remove(self.listener);
    }
}
// ANCHOR_END: fault

impl Handler<TcpStream> for Connection {
    fn readable(
        &mut self,
        reactor: &mut Reactor,
        me: Token,
        mut stream: &TcpStream,
    ) -> io::Result<()> {
        let mut buffer = [0; BUFFER_SIZE];
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            result => result?,
        };
        // ANCHOR: called
        if count == 0 {
            reactor.remove(me);
            self.leave(reactor);
            return Ok(());
        }
        // ANCHOR_END: called
        self.pending = buffer[..count].to_vec();
        self.writable(reactor, me, stream)
    }

    fn writable(
        &mut self,
        reactor: &mut Reactor,
        me: Token,
        mut stream: &TcpStream,
    ) -> io::Result<()> {
        match stream.write(&self.pending) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => self.pending = self.pending.split_off(result?),
        }
        let interest = if self.pending.is_empty() {
            Interest::Read
        } else {
            Interest::Write
        };
        reactor.set_interest(me, interest)
    }

    fn failed(&mut self, reactor: &mut Reactor, _: io::Error) {
        self.leave(reactor);
    }
}
