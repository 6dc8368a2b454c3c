// ANCHOR: all
// ANCHOR: limits
use std::{
    io::{self, ErrorKind, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use crate::{Interest, Reactor, Token};

/// How long a listener rests when the system has no descriptor or memory for a newcomer.
const REST: Duration = Duration::from_secs(1);

/// How many newcomers are taken in one turn: the clients who are here already wait meanwhile.
const BATCH: usize = 128;
// ANCHOR_END: limits

// ANCHOR: add-listener-example
impl Reactor {
    /// Accepts newcomers and calls `welcome` with each of them; the stream is non-blocking.
    ///
    /// When accept(2) has no descriptor or no memory for a newcomer, that is told on stderr
    /// once, and the listener rests for a second: the others wait in the kernel's queue, and
    /// asking for them again and again would only heat the processor. An error from `welcome`
    /// is taken in the same way, so return one only if it would befall the next one, too.
    ///
    /// ```
    /// # use ch03_reactor::Reactor;
    /// # use std::net::{TcpListener, TcpStream};
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let client = TcpStream::connect(listener.local_addr()?)?;
    ///
    /// let mut reactor = Reactor::new()?;
    /// reactor.add_listener(listener, move |reactor, _stream, peer| {
    ///     assert_eq!(peer, client.local_addr()?);
    ///     reactor.stop();
    ///     Ok(())
    /// })?;
    /// reactor.run()?;
    /// # std::io::Result::Ok(())
    /// ```
    // ANCHOR_END: add-listener-example
    // ANCHOR: add-listener
    pub fn add_listener(
        &mut self,
        listener: TcpListener,
        mut welcome: impl FnMut(&mut Reactor, TcpStream, SocketAddr) -> io::Result<()> + 'static,
    ) -> io::Result<Token> {
        listener.set_nonblocking(true)?;
        let mut full = false;
        self.add_reader(listener, move |reactor, token, listener| {
            let accepted = accept_all(reactor, listener, &mut welcome);
            if let Err(error) = &accepted {
                if !full {
                    let _ = writeln!(io::stderr(), "cannot accept for now: {error}");
                }
                reactor.set_interest(token, Interest::None)?;
                rest(reactor, token);
            }
            full = accepted.is_err();
            Ok(())
        })
    }
}
// ANCHOR_END: add-listener

// ANCHOR: accept-all
/// Takes newcomers from the kernel's queue. An error says that no more can be had for now.
fn accept_all(
    reactor: &mut Reactor,
    listener: &TcpListener,
    welcome: &mut impl FnMut(&mut Reactor, TcpStream, SocketAddr) -> io::Result<()>,
) -> io::Result<()> {
    for tried in 0..BATCH {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?; // Linux does not inherit it from the listener
                welcome(reactor, stream, peer)?;
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => break,
                // What has befallen this client in the queue (accept(2), "Error handling").
                ErrorKind::ConnectionAborted
                | ErrorKind::NetworkDown
                | ErrorKind::NetworkUnreachable
                | ErrorKind::HostUnreachable => {}
                // Linux takes the descriptor before it looks into the queue: perhaps nobody waits.
                _ if tried > 0 => break,
                // No descriptor (EMFILE, ENFILE) or no memory is left. Rarer errors of one client
                // (EPROTO, EPERM) have no kind of their own, and cost a rest, too.
                _ => return Err(error),
            },
        }
    }
    Ok(()) // who is left is reported again on the next turn
}
// ANCHOR_END: accept-all

// ANCHOR: rest
/// Watches the listener again after a while.
fn rest(reactor: &mut Reactor, listener: Token) {
    reactor.add_timer(REST, move |reactor| {
        if reactor.set_interest(listener, Interest::Read).is_err() {
            rest(reactor, listener);
        }
    });
}
// ANCHOR_END: rest
// ANCHOR_END: all
