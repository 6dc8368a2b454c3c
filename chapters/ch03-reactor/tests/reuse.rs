//! Descriptors are reused at once: the next accept(2) gets the number that was closed last.
//! This test is alone in its process, so nobody else can take that number.

#![cfg(unix)]

mod common;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    rc::Rc,
    time::Duration,
};

use ch03_reactor::{Interest, Reactor, Token};
use common::{connect, read, run, send};

/// Two sources are ready in the same turn. The first one to be called removes the other and
/// accepts a newcomer, who gets its descriptor and its slot, while its event still waits in
/// the batch. The newcomer has sent nothing: whoever calls him took him for the dead one.
#[test]
fn the_event_of_a_removed_source_does_not_reach_the_heir_of_its_descriptor() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (a, peer_a) = connect(&listener)?;
    let (b, peer_b) = connect(&listener)?;
    send(&a, &peer_a, b"a")?;
    send(&b, &peer_b, b"b")?;
    let newcomer = TcpStream::connect(listener.local_addr()?)?; // waits to be accepted
    let newcomer = Rc::new(newcomer);

    let sources = Rc::new(RefCell::new(HashMap::<Token, i32>::new()));
    let runs = Rc::new(Cell::new(0));
    let heard = Rc::new(RefCell::new(Vec::new()));
    listener.set_nonblocking(true)?;
    let listener = Rc::new(listener);

    let mut reactor = Reactor::new()?;
    for stream in [a, b] {
        let descriptor = stream.as_raw_fd();
        let (sources_seen, runs, heard) = (sources.clone(), runs.clone(), heard.clone());
        let (listener, newcomer) = (listener.clone(), newcomer.clone());
        let token = reactor.add_reader(stream, move |reactor, me, _| {
            runs.set(runs.get() + 1);
            let sources = sources_seen.borrow();
            let (&other, &descriptor) = sources.iter().find(|it| *it.0 != me).expect("two");
            reactor.remove(other);

            let (heir, _) = listener.accept()?;
            heir.set_nonblocking(true)?;
            assert_eq!(heir.as_raw_fd(), descriptor, "the descriptor is reused");
            let heard = heard.clone();
            let heir = reactor.add_reader(heir, move |reactor, me, heir| {
                let bytes = read(heir)?;
                let last = bytes == b"c";
                heard.borrow_mut().push(bytes);
                if last {
                    reactor.remove(me);
                }
                Ok(())
            })?;
            assert_ne!(heir, other, "the token is not reused");

            // The dead one's token has no power over the heir either.
            reactor.set_interest(other, Interest::None)?;
            reactor.remove(other);

            reactor.remove(me);
            let newcomer = newcomer.clone();
            reactor.add_timer(Duration::from_millis(5), move |_| {
                io::Write::write_all(&mut &*newcomer, b"c").expect("the heir is connected");
            });
            Ok(())
        })?;
        sources.borrow_mut().insert(token, descriptor);
    }
    run(&mut reactor);

    assert_eq!(runs.get(), 1, "one of the two removed the other");
    assert_eq!(*heard.borrow(), [b"c"], "called for its own data alone");
    Ok(())
}
