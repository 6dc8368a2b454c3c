//! Wrong on purpose (B19): an answer to a request that nobody has read.
//!
//! The original writes its page as soon as a client has connected, and closes. Garbage gets
//! "200 OK"; and what the client still sends meets a closed socket, so that the kernel
//! answers it with a reset, which may destroy the page on its way. Under a load generator the
//! original had 17,221 write errors in 24,028 requests; how many you see is a matter of
//! timing. Look at `Connection::writable`.

use std::{
    io::{self, ErrorKind, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    time::Duration,
};

use anyhow::Context;
use ch03_reactor::{Handler, Interest, Reactor, Token};
use clap::Parser;

const PAGE: &str = "HTTP/1.1 200 OK\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 14\r\n\
    Connection: close\r\n\
    \r\n\
    Hello, world!\n";

/// Serve a page over HTTP, whatever the request (wrong on purpose: B19)
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1337", value_parser = resolve)]
    listen: SocketAddr,
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}

fn main() -> anyhow::Result<()> {
    let Args { listen } = Args::parse();
    let listener = TcpListener::bind(listen).context(format!("cannot listen on {listen}"))?;
    listener.set_nonblocking(true)?;
    let mut reactor = Reactor::new().context("cannot create the event loop")?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    let mut full = false;
    reactor.add_reader(listener, move |reactor, token, listener| {
        let accepted = accept(reactor, listener);
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

/// Takes a newcomer, if one is there. An error says that no more can be had for now.
fn accept(reactor: &mut Reactor, listener: &TcpListener) -> io::Result<()> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            let connection = Connection { sent: 0 };
            reactor.add(stream, Interest::Write, connection).map(drop)
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

/// One client, and how much of the page it has taken.
struct Connection {
    sent: usize,
}

impl Handler<TcpStream> for Connection {
    fn readable(&mut self, _: &mut Reactor, _: Token, _: &TcpStream) -> io::Result<()> {
        Ok(()) // never called: nobody wants to hear the request
    }

    // ANCHOR: fault
    fn writable(
        &mut self,
        reactor: &mut Reactor,
        me: Token,
        mut stream: &TcpStream,
    ) -> io::Result<()> {
        // The fault: this is no answer, as there was no question. The request is still in
        // the kernel, or on its way, when the connection is closed.
        match stream.write(&PAGE.as_bytes()[self.sent..]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => self.sent += result?,
        }
        if self.sent == PAGE.len() {
            reactor.remove(me);
        }
        Ok(())
    }
    // ANCHOR_END: fault
}
