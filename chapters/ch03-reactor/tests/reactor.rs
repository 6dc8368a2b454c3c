//! What the loop promises, seen from outside. Nothing here waits for time to pass in the hope
//! that something has happened: each test waits for an event, and the watchdog in `run` fails
//! it if that never comes.

mod common;

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use ch03_reactor::{Handle, Handler, Interest, Reactor, Token};
use common::{DEADLINE, connect, read, run, send};

const SOON: Duration = Duration::from_millis(5);
const NEVER: Duration = Duration::from_secs(600);

type Count = Rc<Cell<usize>>;

fn add_one(count: &Cell<usize>) -> usize {
    count.set(count.get() + 1);
    count.get()
}

/// What happened, in order.
type Log = Rc<RefCell<Vec<&'static str>>>;

/// A handler made of two functions, which keeps its errors.
struct Both<R, W> {
    readable: R,
    writable: W,
    errors: Rc<RefCell<Vec<String>>>,
}

impl<R, W> Both<R, W> {
    fn new(readable: R, writable: W) -> Both<R, W> {
        let errors = Rc::default();
        Both {
            readable,
            writable,
            errors,
        }
    }
}

impl<R, W> Handler<TcpStream> for Both<R, W>
where
    R: FnMut(&mut Reactor, Token, &TcpStream) -> io::Result<()>,
    W: FnMut(&mut Reactor, Token, &TcpStream) -> io::Result<()>,
{
    fn readable(&mut self, reactor: &mut Reactor, me: Token, stream: &TcpStream) -> io::Result<()> {
        (self.readable)(reactor, me, stream)
    }

    fn writable(&mut self, reactor: &mut Reactor, me: Token, stream: &TcpStream) -> io::Result<()> {
        (self.writable)(reactor, me, stream)
    }

    fn failed(&mut self, _: &mut Reactor, error: io::Error) {
        self.errors.borrow_mut().push(error.to_string());
    }
}

/// A connection of its own.
fn pair() -> io::Result<(TcpStream, TcpStream)> {
    connect(&TcpListener::bind("127.0.0.1:0")?)
}

/// A connection on which a byte has arrived.
fn ready_pair() -> io::Result<(TcpStream, TcpStream)> {
    let (ours, peer) = pair()?;
    send(&ours, &peer, b"x")?;
    Ok((ours, peer))
}

/// Waits for the peer to hear that our end has been closed. It hears a reset if it had sent
/// something that nobody read.
fn hears_the_end(mut peer: &TcpStream) -> bool {
    match peer.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted
        ),
    }
}

/// How often the loop of this thread turns in a while. Each turn makes one read(2), of the
/// descriptor that wakes the loop, and Linux counts a thread's reads. A loop that sleeps turns
/// for the two timers that look; a loop that spins turns ten thousand times.
#[cfg(target_os = "linux")]
fn turns(reactor: &mut Reactor) -> usize {
    fn reads() -> usize {
        let counters = std::fs::read_to_string("/proc/thread-self/io").unwrap_or_default();
        let mut counters = counters.lines().filter_map(|it| it.strip_prefix("syscr: "));
        counters
            .next()
            .map_or(0, |it| it.parse().expect("a number"))
    }

    let (start, end) = (Count::default(), Count::default());
    let end_seen = end.clone();
    reactor.add_timer(SOON, move |reactor| {
        start.set(reads());
        reactor.add_timer(6 * SOON, move |reactor| {
            end_seen.set(reads() - start.get());
            reactor.stop();
        });
    });
    run(reactor);
    end.get()
}

#[cfg(target_os = "linux")]
const FEW: usize = 20;

// Registration

#[test]
fn a_reader_is_called_when_data_arrives_and_not_before() -> io::Result<()> {
    let (ours, peer) = pair()?;
    let log = Log::default();
    let mut reactor = Reactor::new()?;
    let seen = log.clone();
    reactor.add_reader(ours, move |reactor, me, stream| {
        assert_eq!(read(stream)?, b"x");
        seen.borrow_mut().push("called");
        reactor.remove(me);
        Ok(())
    })?;
    let seen = log.clone();
    reactor.add_timer(SOON, move |_| {
        seen.borrow_mut().push("sent");
        (&peer).write_all(b"x").expect("the peer is connected");
    });
    run(&mut reactor);
    assert_eq!(*log.borrow(), ["sent", "called"]);
    Ok(())
}

#[test]
fn a_reader_is_called_at_the_end_of_the_stream() -> io::Result<()> {
    let (ours, peer) = pair()?;
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    let seen = calls.clone();
    reactor.add_reader(ours, move |reactor, me, mut stream| {
        assert_eq!(stream.read(&mut [0])?, 0);
        add_one(&seen);
        reactor.remove(me);
        Ok(())
    })?;
    reactor.add_timer(SOON, move |_| drop(peer));
    run(&mut reactor);
    assert_eq!(calls.get(), 1);
    Ok(())
}

#[test]
fn what_a_handler_leaves_is_reported_again() -> io::Result<()> {
    let (ours, peer) = pair()?;
    send(&ours, &peer, b"abc")?;
    let taken = Rc::new(RefCell::new(Vec::new()));
    let mut reactor = Reactor::new()?;
    let seen = taken.clone();
    reactor.add_reader(ours, move |reactor, me, mut stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        seen.borrow_mut().extend(byte);
        if byte == *b"c" {
            reactor.remove(me);
        }
        Ok(())
    })?;
    run(&mut reactor);
    assert_eq!(*taken.borrow(), b"abc");
    Ok(())
}

#[test]
fn a_writer_is_called_when_there_is_room_and_not_before() -> io::Result<()> {
    let (ours, peer) = pair()?;
    while (&ours).write(&[0; 64 * 1024]).is_ok() {}
    let (log, mut reactor) = (Log::default(), Reactor::new()?);

    let seen = log.clone();
    reactor.add_writer(ours, move |reactor, _, _| {
        seen.borrow_mut().push("room");
        reactor.stop();
        Ok(())
    })?;
    peer.set_nonblocking(true)?;
    let drain = reactor.add_reader(peer, |_, _, peer| read(peer).map(drop))?;
    reactor.set_interest(drain, Interest::None)?;
    let seen = log.clone();
    reactor.add_timer(SOON, move |reactor| {
        seen.borrow_mut().push("drain");
        reactor
            .set_interest(drain, Interest::Read)
            .expect("watched");
    });
    run(&mut reactor);
    assert_eq!(*log.borrow(), ["drain", "room"]);
    Ok(())
}

#[test]
fn interest_in_both_serves_reading_first_and_then_writing() -> io::Result<()> {
    let (ours, _peer) = ready_pair()?;
    let (log, mut reactor) = (Log::default(), Reactor::new()?);
    let (reads, writes) = (log.clone(), log.clone());
    let handler = Both::new(
        move |_: &mut Reactor, _, stream: &TcpStream| {
            reads.borrow_mut().push("read");
            read(stream).map(drop)
        },
        move |reactor: &mut Reactor, me, _: &TcpStream| {
            writes.borrow_mut().push("write");
            reactor.remove(me);
            Ok(())
        },
    );
    reactor.add(ours, Interest::ReadWrite, handler)?;
    run(&mut reactor);
    assert_eq!(*log.borrow(), ["read", "write"]);
    Ok(())
}

#[test]
fn a_source_without_interest_is_kept_and_not_called() -> io::Result<()> {
    let (ours, _peer) = ready_pair()?;
    let (log, mut reactor) = (Log::default(), Reactor::new()?);
    let (reads, later) = (log.clone(), log.clone());
    let handler = Both::new(
        move |reactor: &mut Reactor, me, _: &TcpStream| {
            reads.borrow_mut().push("read");
            reactor.remove(me);
            Ok(())
        },
        |_: &mut Reactor, _, _: &TcpStream| panic!("nobody asked for room"),
    );
    let token = reactor.add(ours, Interest::None, handler)?;
    reactor.add_timer(SOON, move |reactor| {
        later.borrow_mut().push("ask");
        reactor
            .set_interest(token, Interest::Read)
            .expect("watched");
    });
    run(&mut reactor);
    assert_eq!(*log.borrow(), ["ask", "read"]);
    Ok(())
}

#[test]
#[cfg(target_os = "linux")]
fn a_source_that_the_kernel_cannot_watch_is_refused_and_leaves_nothing() -> io::Result<()> {
    let file = std::fs::File::open(std::env::current_exe()?)?; // epoll_ctl(2): EPERM
    let state = Rc::new(());
    let mut reactor = Reactor::new()?;
    let kept = state.clone();
    let refused = reactor.add_reader(file, move |_, _, _| {
        let _ = &kept;
        Ok(())
    });
    assert_eq!(
        refused.expect_err("a file is always ready").kind(),
        ErrorKind::PermissionDenied
    );
    assert_eq!(Rc::strong_count(&state), 1, "the handler is dropped");
    run(&mut reactor); // returns: nothing is left
    Ok(())
}

#[test]
fn a_source_that_is_watched_already_is_refused_and_the_first_goes_on() -> io::Result<()> {
    let (ours, peer) = ready_pair()?;
    let ours = Rc::new(ours);
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    let seen = calls.clone();
    reactor.add_reader(ours.clone(), move |reactor, me, _| {
        add_one(&seen);
        reactor.remove(me);
        Ok(())
    })?;
    let twice = reactor.add_reader(ours, |_, _, _| panic!("it was refused"));
    assert_eq!(
        twice.expect_err("the same descriptor").kind(),
        ErrorKind::AlreadyExists
    );
    run(&mut reactor);
    assert_eq!(calls.get(), 1);
    assert!(hears_the_end(&peer));
    Ok(())
}

// Removal

#[test]
fn of_two_ready_sources_that_remove_each_other_exactly_one_runs() -> io::Result<()> {
    let (a, peer_a) = ready_pair()?;
    let (b, peer_b) = ready_pair()?;
    let (calls, tokens) = (Count::default(), Rc::new(RefCell::new(Vec::new())));
    let mut reactor = Reactor::new()?;
    for stream in [a, b] {
        let (seen, all) = (calls.clone(), tokens.clone());
        let token = reactor.add_reader(stream, move |reactor, _, _| {
            add_one(&seen);
            for &token in all.borrow().iter() {
                reactor.remove(token); // the other one, and itself
            }
            Ok(())
        })?;
        tokens.borrow_mut().push(token);
    }
    run(&mut reactor);
    assert_eq!(calls.get(), 1);
    assert!(hears_the_end(&peer_a) && hears_the_end(&peer_b));
    Ok(())
}

#[test]
fn a_handler_that_removes_itself_is_not_called_again() -> io::Result<()> {
    let (ours, peer) = ready_pair()?; // its byte stays unread: it would be called for ever
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    let seen = calls.clone();
    reactor.add_reader(ours, move |reactor, me, _| {
        add_one(&seen);
        reactor.remove(me);
        reactor.remove(me); // names nothing any more
        reactor.set_interest(me, Interest::ReadWrite)
    })?;
    reactor.add_timer(SOON, |_| ()); // a few more turns
    run(&mut reactor);
    assert_eq!(calls.get(), 1);
    assert!(hears_the_end(&peer));
    Ok(())
}

/// The second half-closing client killed the handbook's reactor this way (fault B10).
#[test]
fn a_source_removed_while_reading_is_not_written_in_the_same_turn() -> io::Result<()> {
    let (ours, _peer) = ready_pair()?;
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    let seen = calls.clone();
    let handler = Both::new(
        move |reactor: &mut Reactor, me, _: &TcpStream| {
            add_one(&seen);
            reactor.remove(me);
            Ok(())
        },
        |_: &mut Reactor, _, _: &TcpStream| panic!("it has been removed"),
    );
    reactor.add(ours, Interest::ReadWrite, handler)?;
    run(&mut reactor);
    assert_eq!(calls.get(), 1);
    Ok(())
}

#[test]
fn a_handler_that_removes_itself_can_put_another_source_in_its_place() -> io::Result<()> {
    let (first, peer) = ready_pair()?;
    let (second, _peer) = ready_pair()?;
    let (log, mut reactor) = (Log::default(), Reactor::new()?);
    let (seen, mut second) = (log.clone(), Some(second));
    reactor.add_reader(first, move |reactor, me, _| {
        seen.borrow_mut().push("first");
        reactor.remove(me);
        let (seen, second) = (seen.clone(), second.take().expect("called once"));
        let heir = reactor.add_reader(second, move |reactor, me, _| {
            seen.borrow_mut().push("second");
            reactor.remove(me);
            Ok(())
        })?;
        assert_ne!(heir, me);
        Ok(())
    })?;
    run(&mut reactor);
    assert_eq!(*log.borrow(), ["first", "second"]);
    assert!(hears_the_end(&peer));
    Ok(())
}

#[test]
fn the_token_of_a_removed_source_has_no_power_over_the_next() -> io::Result<()> {
    let (first, _peer) = pair()?;
    let (second, _peer) = ready_pair()?;
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    let old = reactor.add_reader(first, |_, _, _| panic!("it has been removed"))?;
    reactor.remove(old);
    let seen = calls.clone();
    let new = reactor.add_reader(second, move |reactor, me, _| {
        add_one(&seen);
        reactor.remove(me);
        Ok(())
    })?;
    assert_ne!(old, new);
    reactor.set_interest(old, Interest::None)?;
    reactor.remove(old);
    run(&mut reactor);
    assert_eq!(calls.get(), 1);
    Ok(())
}

#[test]
fn removal_closes_the_source_and_drops_the_state_of_its_handler() -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    let state = Rc::new(());
    let keep = |state: &Rc<()>| {
        let state = state.clone();
        move |reactor: &mut Reactor, me: Token, _: &TcpStream| {
            let _ = &state;
            reactor.remove(me);
            Ok(())
        }
    };

    // Removed from outside: at once.
    let (ours, peer) = pair()?;
    let token = reactor.add_reader(ours, keep(&state))?;
    assert_eq!(Rc::strong_count(&state), 2);
    reactor.remove(token);
    assert_eq!(Rc::strong_count(&state), 1);
    assert!(hears_the_end(&peer));

    // Removed by its own handler: after it has returned.
    let (ours, peer) = ready_pair()?;
    reactor.add_reader(ours, keep(&state))?;
    run(&mut reactor);
    assert_eq!(Rc::strong_count(&state), 1);
    assert!(hears_the_end(&peer));

    // Removed for an error: the same.
    let (ours, peer) = ready_pair()?;
    let kept = state.clone();
    let failing = move |_: &mut Reactor, _, _: &TcpStream| {
        let _ = &kept;
        Err(io::Error::other("on purpose"))
    };
    let idle = |_: &mut Reactor, _, _: &TcpStream| Ok(());
    reactor.add(ours, Interest::Read, Both::new(failing, idle))?;
    run(&mut reactor);
    assert_eq!(Rc::strong_count(&state), 1);
    assert!(hears_the_end(&peer));
    Ok(())
}

#[test]
fn dropping_the_loop_closes_its_sources_even_while_a_handle_lives() -> io::Result<()> {
    let (ours, peer) = pair()?;
    let state = Rc::new(());
    let mut reactor = Reactor::new()?;
    let handle = reactor.handle();
    let (by_source, by_timer, by_wake) = (state.clone(), state.clone(), state.clone());
    reactor.add_reader(ours, move |_, _, _| {
        let _ = &by_source;
        Ok(())
    })?;
    reactor.add_timer(NEVER, move |_| drop(by_timer));
    reactor.on_wake(move |_| {
        let _ = &by_wake;
    });
    assert_eq!(Rc::strong_count(&state), 4);
    drop(reactor);
    assert_eq!(Rc::strong_count(&state), 1);
    assert!(hears_the_end(&peer));
    handle.wake()?; // nobody is there any more, and nothing happens
    handle.stop()
}

// The end of the loop

#[test]
fn run_returns_when_nothing_is_left() -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    run(&mut reactor); // nothing was ever there

    let (ours, _peer) = pair()?;
    let token = reactor.add_reader(ours, |_, _, _| panic!("nothing arrives"))?;
    reactor.add_timer(SOON, move |reactor| reactor.remove(token));
    run(&mut reactor); // the last source went after the last timer
    Ok(())
}

#[test]
fn a_source_without_interest_keeps_the_loop_running() -> io::Result<()> {
    let (ours, _peer) = pair()?;
    let mut reactor = Reactor::new()?;
    let token = reactor.add_reader(ours, |_, _, _| panic!("nobody asked"))?;
    reactor.set_interest(token, Interest::None)?;
    let handle = reactor.handle();
    let (woken, seen) = (Count::default(), Count::default());
    let calls = woken.clone();
    reactor.on_wake(move |reactor| {
        add_one(&seen);
        reactor.remove(token);
        woken.set(seen.get());
    });
    let thread = thread::spawn(move || handle.wake());
    run(&mut reactor);
    thread.join().expect("it only wakes")?;
    assert_eq!(calls.get(), 1);
    Ok(())
}

// Timers

#[test]
fn timers_fire_in_the_order_of_their_deadlines_and_none_early() -> io::Result<()> {
    let fired = Rc::new(RefCell::new(Vec::new()));
    let mut reactor = Reactor::new()?;
    for millis in [12, 3, 0, 7, 25, 1, 18] {
        let (added, fired) = (Instant::now(), fired.clone());
        let after = Duration::from_micros(millis * 1000 + 900);
        reactor.add_timer(after, move |_| {
            assert!(
                added.elapsed() >= after,
                "{:?} for {after:?}",
                added.elapsed()
            );
            fired.borrow_mut().push(millis);
        });
    }
    run(&mut reactor);
    assert_eq!(*fired.borrow(), [0, 1, 3, 7, 12, 18, 25]);
    Ok(())
}

#[test]
fn timers_of_the_same_delay_fire_in_the_order_in_which_they_were_added() -> io::Result<()> {
    let fired = Rc::new(RefCell::new(Vec::new()));
    let mut reactor = Reactor::new()?;
    let mut timers = Vec::new();
    for number in 0..100 {
        let fired = fired.clone();
        timers.push(reactor.add_timer(SOON, move |_| fired.borrow_mut().push(number)));
    }
    assert!(timers.is_sorted_by(|a, b| a < b), "no two are the same");
    run(&mut reactor);
    assert!(fired.borrow().iter().copied().eq(0..100));
    Ok(())
}

#[test]
fn a_cancelled_timer_neither_fires_nor_keeps_the_loop_running() -> io::Result<()> {
    let state = Rc::new(());
    let mut reactor = Reactor::new()?;
    let kept = state.clone();
    let timer = reactor.add_timer(NEVER, move |_| panic!("cancelled: {kept:?}"));
    reactor.add_timer(SOON, move |reactor| reactor.cancel(timer));
    run(&mut reactor);
    assert_eq!(Rc::strong_count(&state), 1, "its action is dropped");
    reactor.cancel(timer); // twice is fine
    Ok(())
}

#[test]
fn a_timer_can_cancel_another_that_is_due_in_the_same_turn() -> io::Result<()> {
    let (other, mut reactor) = (Rc::new(Cell::new(None)), Reactor::new()?);
    let seen = other.clone();
    let first = reactor.add_timer(Duration::ZERO, move |reactor| {
        reactor.cancel(seen.get().expect("it was added"));
    });
    let second = reactor.add_timer(Duration::ZERO, |_| panic!("it was cancelled"));
    other.set(Some(second));
    let added = Instant::now();
    while Instant::now() == added {} // both are due before the first turn
    run(&mut reactor);
    reactor.cancel(first); // has fired: ignored
    Ok(())
}

#[test]
fn a_timer_can_be_added_from_a_timer() -> io::Result<()> {
    fn tick(reactor: &mut Reactor, left: usize, log: Rc<RefCell<Vec<usize>>>) {
        reactor.add_timer(Duration::from_micros(100), move |reactor| {
            log.borrow_mut().push(left);
            if left > 0 {
                tick(reactor, left - 1, log);
            }
        });
    }
    let (log, mut reactor) = (Rc::default(), Reactor::new()?);
    tick(&mut reactor, 3, Rc::clone(&log));
    run(&mut reactor);
    assert_eq!(*log.borrow(), [3, 2, 1, 0]);
    Ok(())
}

/// A timer that renews itself without delay is a busy loop, but one of turns: the sources, and
/// other timers, have theirs.
#[test]
fn a_timer_that_renews_itself_at_once_starves_nobody() -> io::Result<()> {
    fn again(reactor: &mut Reactor, rounds: Count) {
        reactor.add_timer(Duration::ZERO, move |reactor| {
            assert!(add_one(&rounds) < 1000, "the source was never called");
            again(reactor, rounds);
        });
    }
    let (ours, _peer) = ready_pair()?;
    let mut reactor = Reactor::new()?;
    again(&mut reactor, Count::default());
    reactor.add_reader(ours, |reactor, _, _| {
        reactor.stop();
        Ok(())
    })?;
    run(&mut reactor);
    Ok(())
}

#[test]
fn a_source_that_is_always_ready_does_not_keep_timers_from_firing() -> io::Result<()> {
    let (ours, _peer) = pair()?;
    let mut reactor = Reactor::new()?;
    reactor.add_writer(ours, |_, _, _| Ok(()))?;
    reactor.add_timer(SOON, Reactor::stop);
    run(&mut reactor);
    Ok(())
}

#[test]
fn a_timer_may_be_as_late_as_one_likes() -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    let timer = reactor.add_timer(Duration::MAX, |_| panic!("the end of time"));
    reactor.add_timer(SOON, move |reactor| {
        // The next turn waits for the late one alone.
        let handle = reactor.handle();
        reactor.on_wake(move |reactor| reactor.cancel(timer));
        thread::spawn(move || handle.wake());
    });
    run(&mut reactor);
    Ok(())
}

// Handlers that add handlers

#[test]
fn a_handler_can_add_handlers() -> io::Result<()> {
    let (log, mut reactor) = (Log::default(), Reactor::new()?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let peer = TcpStream::connect(listener.local_addr()?)?;
    (&peer).write_all(b"x")?;

    let seen = log.clone();
    reactor.add_reader(listener, move |reactor, me, listener| {
        seen.borrow_mut().push("accept");
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        let seen = seen.clone();
        reactor.add_reader(stream, move |reactor, me, stream| {
            seen.borrow_mut().push("read");
            let (seen, answer) = (seen.clone(), stream.try_clone()?);
            reactor.add_writer(answer, move |reactor, me, mut stream| {
                seen.borrow_mut().push("write");
                reactor.remove(me);
                stream.write_all(b"y")
            })?;
            assert_eq!(read(stream)?, b"x");
            reactor.remove(me);
            Ok(())
        })?;
        reactor.remove(me);
        Ok(())
    })?;
    run(&mut reactor);
    assert_eq!(*log.borrow(), ["accept", "read", "write"]);
    peer.set_read_timeout(Some(DEADLINE))?;
    assert_eq!(read(&peer)?, b"y");
    assert!(hears_the_end(&peer));
    Ok(())
}

/// A handler adds so many that the loop has to move its slots while one of them is lent out.
#[test]
fn a_handler_can_add_a_hundred_handlers() -> io::Result<()> {
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    let (ours, _peer) = ready_pair()?;
    let seen = calls.clone();
    reactor.add_reader(ours, move |reactor, me, stream| {
        for _ in 0..100 {
            let seen = seen.clone();
            reactor.add_reader(stream.try_clone()?, move |reactor, me, _| {
                add_one(&seen);
                reactor.remove(me);
                Ok(())
            })?;
        }
        reactor.remove(me);
        Ok(())
    })?;
    run(&mut reactor);
    assert_eq!(calls.get(), 100);
    Ok(())
}

// Stop

#[test]
fn stop_from_a_handler_ends_the_loop_after_this_turn_and_no_later() -> io::Result<()> {
    let calls = [Count::default(), Count::default()];
    let mut reactor = Reactor::new()?;
    let mut peers = Vec::new();
    for seen in calls.clone() {
        let (ours, peer) = ready_pair()?; // never read: ready in each turn
        peers.push(peer);
        reactor.add_reader(ours, move |reactor, _, _| {
            add_one(&seen);
            reactor.stop();
            Ok(())
        })?;
    }
    run(&mut reactor);
    assert_eq!(calls.each_ref().map(|it| it.get()), [1, 1], "one turn");
    run(&mut reactor);
    assert_eq!(calls.each_ref().map(|it| it.get()), [2, 2], "and one more");
    Ok(())
}

#[test]
fn stop_from_a_timer_leaves_sources_and_later_timers_for_the_next_run() -> io::Result<()> {
    let (ours, _peer) = pair()?;
    let (log, mut reactor) = (Log::default(), Reactor::new()?);
    reactor.add_reader(ours, |_, _, _| panic!("nothing arrives"))?;
    let (first, second) = (log.clone(), log.clone());
    reactor.add_timer(SOON, move |reactor| {
        first.borrow_mut().push("first");
        reactor.stop();
        // Added by the turn that ends: certainly not due in it.
        reactor.add_timer(SOON, move |reactor| {
            second.borrow_mut().push("second");
            reactor.stop();
        });
    });
    run(&mut reactor);
    assert_eq!(*log.borrow(), ["first"]);
    run(&mut reactor);
    assert_eq!(*log.borrow(), ["first", "second"]);
    Ok(())
}

#[test]
fn stop_from_another_thread_ends_a_loop_that_sleeps() -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.add_timer(NEVER, |_| panic!("stopped long before"));
    let (handle, (running, started)) = (reactor.handle(), mpsc::channel());
    reactor.add_timer(SOON, move |_| running.send(()).expect("the thread waits"));
    let thread = thread::spawn(move || {
        started.recv_timeout(DEADLINE).expect("the loop runs");
        thread::sleep(SOON); // by now it sleeps, most likely; it must not matter
        handle.stop()
    });
    run(&mut reactor);
    thread.join().expect("it only stops")
}

#[test]
fn stop_before_run_ends_the_next_run_at_once_and_only_that() -> io::Result<()> {
    let (ours, _peer) = ready_pair()?;
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    let seen = calls.clone();
    reactor.add_reader(ours, move |reactor, me, _| {
        add_one(&seen);
        reactor.remove(me);
        Ok(())
    })?;
    reactor.stop();
    run(&mut reactor);
    assert_eq!(calls.get(), 0);
    reactor.handle().stop()?;
    run(&mut reactor);
    assert_eq!(calls.get(), 0);
    run(&mut reactor);
    assert_eq!(calls.get(), 1);
    Ok(())
}

/// Both signals go to the loop's own thread, so no other test is interrupted by them.
#[test]
#[cfg(target_os = "linux")] // elsewhere `Handle::stop` is not async-signal-safe
fn stop_from_a_signal_handler_ends_the_loop_awake_or_asleep() -> io::Result<()> {
    use nix::sys::{
        pthread::{pthread_kill, pthread_self},
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal::SIGUSR1, raise, sigaction},
    };
    use std::sync::OnceLock;

    static HANDLE: OnceLock<Handle> = OnceLock::new();
    extern "C" fn on_signal(_: i32) {
        if let Some(handle) = HANDLE.get() {
            let _ = handle.stop();
        }
    }

    let mut reactor = Reactor::new()?;
    assert!(HANDLE.set(reactor.handle()).is_ok());
    let handler = SigHandler::Handler(on_signal);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler reads an initialised OnceLock, stores to atomics and calls write(2).
    unsafe { sigaction(SIGUSR1, &action) }?;
    reactor.add_timer(NEVER, |_| panic!("stopped long before"));

    reactor.add_timer(SOON, |_| raise(SIGUSR1).expect("this thread lives"));
    run(&mut reactor);

    let (running, started) = mpsc::channel();
    let it = pthread_self();
    reactor.add_timer(SOON, move |_| running.send(()).expect("the thread waits"));
    let thread = thread::spawn(move || {
        started.recv_timeout(DEADLINE).expect("the loop runs");
        thread::sleep(SOON); // by now it sleeps, most likely; it must not matter
        pthread_kill(it, SIGUSR1)
    });
    run(&mut reactor);
    thread.join().expect("it only signals")?;
    Ok(())
}

// Wake

#[test]
fn wake_from_another_thread_calls_on_wake_in_the_loops_thread() -> io::Result<()> {
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    reactor.add_timer(NEVER, |_| panic!("woken long before"));
    let (seen, here) = (calls.clone(), thread::current().id());
    reactor.on_wake(move |reactor| {
        add_one(&seen);
        assert_eq!(thread::current().id(), here);
        reactor.stop();
    });
    let (handle, (running, started)) = (reactor.handle(), mpsc::channel());
    reactor.add_timer(SOON, move |_| running.send(()).expect("the thread waits"));
    let thread = thread::spawn(move || {
        started.recv_timeout(DEADLINE).expect("the loop runs");
        thread::sleep(SOON); // by now it sleeps, most likely; it must not matter
        handle.wake()
    });
    run(&mut reactor);
    thread.join().expect("it only wakes")?;
    assert_eq!(calls.get(), 1);
    Ok(())
}

#[test]
fn wakes_before_a_turn_become_one_call_and_none_is_left_over() -> io::Result<()> {
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    let seen = calls.clone();
    reactor.on_wake(move |_| {
        add_one(&seen);
    });
    for _ in 0..3 {
        reactor.handle().wake()?;
    }
    reactor.add_timer(SOON, |_| ());
    run(&mut reactor);
    assert_eq!(calls.get(), 1);
    Ok(())
}

#[test]
fn a_wake_during_on_wake_calls_it_again() -> io::Result<()> {
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    reactor.add_timer(NEVER, |_| panic!("woken long before"));
    let (seen, handle) = (calls.clone(), reactor.handle());
    reactor.on_wake(move |reactor| match add_one(&seen) {
        1 => handle.wake().expect("the loop can be told"),
        _ => reactor.stop(),
    });
    reactor.handle().wake()?;
    run(&mut reactor);
    assert_eq!(calls.get(), 2);
    Ok(())
}

#[test]
fn no_wake_of_many_threads_is_lost() -> io::Result<()> {
    const THREADS: usize = 4;
    const JOBS: usize = 500;
    let mut reactor = Reactor::new()?;
    let timer = reactor.add_timer(NEVER, |_| panic!("woken long before"));
    let posted = Arc::new(AtomicUsize::new(0));
    let threads = [(); THREADS].map(|()| {
        let (handle, posted) = (reactor.handle(), posted.clone());
        thread::spawn(move || {
            for _ in 0..JOBS {
                posted.fetch_add(1, SeqCst);
                handle.wake().expect("the loop can be told");
            }
        })
    });
    let (done, calls) = (Count::default(), Count::default());
    let seen = calls.clone();
    reactor.on_wake(move |reactor| {
        add_one(&seen);
        done.set(done.get() + posted.swap(0, SeqCst));
        if done.get() == THREADS * JOBS {
            reactor.cancel(timer); // ends the loop
        }
    });
    run(&mut reactor);
    for thread in threads {
        thread.join().expect("it only wakes");
    }
    assert!((1..=THREADS * JOBS).contains(&calls.get()));
    Ok(())
}

#[test]
fn on_wake_can_be_replaced_from_within_and_need_not_be_set() -> io::Result<()> {
    let (log, mut reactor) = (Log::default(), Reactor::new()?);
    reactor.handle().wake()?; // for nobody
    reactor.add_timer(SOON, |_| ());
    run(&mut reactor);

    let (seen, handle) = (log.clone(), reactor.handle());
    reactor.add_timer(NEVER, |_| panic!("stopped long before"));
    reactor.on_wake(move |reactor| {
        seen.borrow_mut().push("first");
        let seen = seen.clone();
        reactor.on_wake(move |reactor| {
            seen.borrow_mut().push("second");
            reactor.stop();
        });
        handle.wake().expect("the loop can be told");
    });
    reactor.handle().wake()?;
    run(&mut reactor);
    assert_eq!(*log.borrow(), ["first", "second"]);
    Ok(())
}

#[test]
fn a_handle_can_go_to_any_thread() {
    fn goes_anywhere<T: Send + Sync + Clone + 'static>() {}
    goes_anywhere::<Handle>();
}

// Errors

#[test]
fn an_error_removes_its_own_source_and_the_loop_goes_on() -> io::Result<()> {
    let (bad, bad_peer) = ready_pair()?;
    let (good, good_peer) = pair()?;
    let mut reactor = Reactor::new()?;
    let failing = Both::new(
        |_: &mut Reactor, _, _: &TcpStream| Err(io::Error::other("on purpose")),
        |_: &mut Reactor, _, _: &TcpStream| panic!("reading has failed"),
    );
    let errors = failing.errors.clone();
    reactor.add(bad, Interest::ReadWrite, failing)?;
    reactor.add_reader(good, |reactor, me, stream| {
        assert_eq!(read(stream)?, b"x");
        reactor.remove(me);
        Ok(())
    })?;
    reactor.add_timer(SOON, move |_| {
        assert!(hears_the_end(&bad_peer), "the failed one is closed by now");
        (&good_peer).write_all(b"x").expect("the peer is connected");
    });
    run(&mut reactor);
    assert_eq!(*errors.borrow(), ["on purpose"]);
    Ok(())
}

#[test]
fn an_error_of_the_write_handler_removes_its_source_too() -> io::Result<()> {
    let (ours, peer) = pair()?;
    let mut reactor = Reactor::new()?;
    let failing = Both::new(
        |_: &mut Reactor, _, _: &TcpStream| panic!("nothing arrives"),
        |_: &mut Reactor, _, _: &TcpStream| Err(io::Error::other("on purpose")),
    );
    let errors = failing.errors.clone();
    reactor.add(ours, Interest::ReadWrite, failing)?;
    run(&mut reactor);
    assert_eq!(*errors.borrow(), ["on purpose"]);
    assert!(hears_the_end(&peer));
    Ok(())
}

#[test]
fn an_error_after_self_removal_is_told_once_and_spares_the_heir_of_the_slot() -> io::Result<()> {
    let (first, peer) = ready_pair()?;
    let (second, _peer) = ready_pair()?;
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    let (seen, mut second) = (calls.clone(), Some(second));
    let failing = Both::new(
        move |reactor: &mut Reactor, me, _: &TcpStream| {
            reactor.remove(me);
            let (seen, second) = (seen.clone(), second.take().expect("called once"));
            reactor.add_reader(second, move |reactor, me, _| {
                add_one(&seen);
                reactor.remove(me);
                Ok(())
            })?;
            Err(io::Error::other("on purpose"))
        },
        |_: &mut Reactor, _, _: &TcpStream| Ok(()),
    );
    let errors = failing.errors.clone();
    reactor.add(first, Interest::Read, failing)?;
    run(&mut reactor);
    assert_eq!(*errors.borrow(), ["on purpose"]);
    assert_eq!(calls.get(), 1, "the second was called");
    assert!(hears_the_end(&peer));
    Ok(())
}

#[test]
fn failed_may_use_the_loop() -> io::Result<()> {
    struct Retry(Count);
    impl Handler<TcpStream> for Retry {
        fn readable(&mut self, _: &mut Reactor, _: Token, _: &TcpStream) -> io::Result<()> {
            Err(io::Error::other("on purpose"))
        }
        fn writable(&mut self, _: &mut Reactor, _: Token, _: &TcpStream) -> io::Result<()> {
            Ok(())
        }
        fn failed(&mut self, reactor: &mut Reactor, _: io::Error) {
            let retries = self.0.clone();
            reactor.add_timer(SOON, move |_| {
                add_one(&retries);
            });
        }
    }
    let (ours, _peer) = ready_pair()?;
    let retries = Count::default();
    let mut reactor = Reactor::new()?;
    reactor.add(ours, Interest::Read, Retry(retries.clone()))?;
    run(&mut reactor);
    assert_eq!(retries.get(), 1);
    Ok(())
}

#[test]
fn a_panic_passes_through_run_and_closes_its_source() -> io::Result<()> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let (ours, peer) = ready_pair()?;
    let twin = ours.try_clone()?; // closing is not enough while this lives: see epoll(7)
    let mut reactor = Reactor::new()?;
    let token = reactor.add_reader(ours, |_, _, _| panic!("on purpose"))?;
    let result = catch_unwind(AssertUnwindSafe(|| reactor.run()));
    assert!(result.is_err());

    #[cfg(target_os = "linux")]
    assert!(turns(&mut reactor) < FEW, "the kernel still watches it");
    reactor.remove(token);
    run(&mut reactor); // returns: nothing is left
    drop(twin);
    assert!(hears_the_end(&peer));
    Ok(())
}

#[test]
#[should_panic(expected = "exchanged the loop")]
fn a_handler_that_exchanges_its_loop_is_found_out() {
    let (ours, _peer) = ready_pair().expect("loopback works");
    let mut reactor = Reactor::new().expect("a descriptor is left");
    let exchange = |reactor: &mut Reactor, _: Token, _: &TcpStream| {
        *reactor = Reactor::new()?;
        Ok(())
    };
    reactor.add_reader(ours, exchange).expect("watched");
    run(&mut reactor);
}

/// Puts another loop in the place of its own when it is told that it has failed.
struct ExchangesOnFailure(Rc<RefCell<Option<Reactor>>>);

impl Handler<TcpStream> for ExchangesOnFailure {
    fn readable(&mut self, _: &mut Reactor, _: Token, _: &TcpStream) -> io::Result<()> {
        Err(io::Error::other("it fails"))
    }

    fn writable(&mut self, _: &mut Reactor, _: Token, _: &TcpStream) -> io::Result<()> {
        Ok(())
    }

    fn failed(&mut self, reactor: &mut Reactor, _: io::Error) {
        if let Some(other) = self.0.take() {
            self.0.replace(Some(std::mem::replace(reactor, other)));
        }
    }
}

#[test]
#[should_panic(expected = "exchanged the loop")]
fn failed_that_exchanges_its_loop_is_found_out_before_the_next_event() {
    let mut other = Reactor::new().expect("a descriptor is left");
    let mut peers = Vec::new();
    for _ in 0..2 {
        let (ours, peer) = pair().expect("loopback works");
        let uncalled = |_: &mut Reactor, _: Token, _: &TcpStream| -> io::Result<()> {
            panic!("an event of one loop has reached the other");
        };
        other.add_reader(ours, uncalled).expect("watched");
        peers.push(peer);
    }
    let other = Rc::new(RefCell::new(Some(other)));
    let mut reactor = Reactor::new().expect("a descriptor is left");
    for _ in 0..2 {
        let (ours, peer) = ready_pair().expect("loopback works");
        let handler = ExchangesOnFailure(Rc::clone(&other));
        let added = reactor.add(ours, Interest::Read, handler);
        added.expect("watched");
        peers.push(peer);
    }
    run(&mut reactor);
}

// No spinning

#[test]
#[cfg(target_os = "linux")]
fn a_loop_with_nothing_to_do_sleeps() -> io::Result<()> {
    let (ours, _peer) = pair()?;
    let mut reactor = Reactor::new()?;
    reactor.add_reader(ours, |_, _, _| panic!("nothing arrives"))?;
    reactor.add_timer(NEVER, |_| panic!("stopped long before"));
    let turns = turns(&mut reactor);
    assert!(turns < FEW, "{turns} turns");
    Ok(())
}

/// The check of the check: `turns` does see a loop that spins.
#[test]
#[cfg(target_os = "linux")]
fn a_loop_that_spins_is_seen_to_spin() -> io::Result<()> {
    if !std::path::Path::new("/proc/thread-self/io").exists() {
        return Ok(()); // a kernel that does not count
    }
    let (ours, _peer) = pair()?;
    let mut reactor = Reactor::new()?;
    reactor.add_writer(ours, |_, _, _| Ok(()))?; // there is always room
    let turns = turns(&mut reactor);
    assert!(turns > FEW, "{turns} turns");
    Ok(())
}

/// epoll reports a hang-up even of a source that it is asked nothing about: epoll_ctl(2).
#[test]
#[cfg(target_os = "linux")]
fn a_source_without_interest_whose_peer_resets_does_not_spin() -> io::Result<()> {
    for asked_before in [false, true] {
        let (ours, peer) = pair()?;
        let mut reactor = Reactor::new()?;
        let idle = |_: &mut Reactor, _: Token, _: &TcpStream| panic!("nobody asked");
        let interest = if asked_before {
            Interest::ReadWrite
        } else {
            Interest::None
        };
        let token = reactor.add(ours, interest, Both::new(idle, idle))?;
        reactor.set_interest(token, Interest::None)?;
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO))?;
        drop(peer); // a reset
        let turns = turns(&mut reactor);
        assert!(turns < FEW, "{turns} turns");
    }
    Ok(())
}

/// The handler itself loses interest: the kernel is told after it has returned.
#[test]
#[cfg(target_os = "linux")]
fn a_handler_that_loses_interest_is_left_alone() -> io::Result<()> {
    let (ours, peer) = ready_pair()?; // its byte stays unread
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    let seen = calls.clone();
    reactor.add_reader(ours, move |reactor, me, _| {
        add_one(&seen);
        reactor.set_interest(me, Interest::None)
    })?;
    let turns = turns(&mut reactor);
    assert!(turns < FEW, "{turns} turns");
    assert_eq!(calls.get(), 1);
    drop(peer);
    Ok(())
}

/// A duplicate keeps an epoll registration alive when the descriptor is closed: epoll(7), Q6.
#[test]
#[cfg(target_os = "linux")]
fn a_removed_source_does_not_spin_even_if_a_duplicate_of_it_lives() -> io::Result<()> {
    for by_itself in [false, true] {
        let (ours, _peer) = ready_pair()?;
        let _twin = ours.try_clone()?;
        let mut reactor = Reactor::new()?;
        let token = reactor.add_reader(ours, |reactor, me, _| {
            reactor.remove(me);
            Ok(())
        })?;
        if by_itself {
            run(&mut reactor);
        } else {
            reactor.remove(token);
        }
        let turns = turns(&mut reactor);
        assert!(turns < FEW, "{turns} turns");
    }
    Ok(())
}

/// An urgent byte is reported as EPOLLPRI, and is no part of what read(2) brings. The attempt
/// to read is what takes it off the report: see `tcp_recvmsg_locked` in Linux.
#[test]
#[cfg(target_os = "linux")]
fn out_of_band_data_does_not_make_a_reader_spin() -> io::Result<()> {
    let (ours, peer) = pair()?;
    let (calls, heard) = (Count::default(), Rc::new(RefCell::new(Vec::new())));
    let mut reactor = Reactor::new()?;
    let (seen, bytes) = (calls.clone(), heard.clone());
    reactor.add_reader(ours, move |reactor, _, stream| {
        add_one(&seen);
        bytes.borrow_mut().extend(read(stream)?);
        if bytes.borrow().ends_with(b"x") {
            reactor.stop();
        }
        Ok(())
    })?;
    assert_eq!(socket2::SockRef::from(&peer).send_out_of_band(b"!")?, 1);
    let turns = turns(&mut reactor);
    assert!(turns < FEW, "{turns} turns");
    assert!(calls.get() < FEW, "{} calls", calls.get());

    (&peer).write_all(b"x")?; // ordinary data still comes
    run(&mut reactor);
    assert_eq!(*heard.borrow(), b"x");
    Ok(())
}

// Interest

#[test]
fn a_handler_can_change_its_own_interest() -> io::Result<()> {
    let (ours, _peer) = ready_pair()?; // its byte stays unread until the end
    let (log, mut reactor) = (Log::default(), Reactor::new()?);
    let (reads, writes) = (log.clone(), log.clone());
    let handler = Both::new(
        move |reactor: &mut Reactor, me, stream: &TcpStream| {
            reads.borrow_mut().push("read");
            if reads.borrow().len() == 1 {
                return reactor.set_interest(me, Interest::Write);
            }
            read(stream)?;
            reactor.remove(me);
            Ok(())
        },
        move |reactor: &mut Reactor, me, _: &TcpStream| {
            writes.borrow_mut().push("write");
            if writes.borrow().len() == 4 {
                reactor.set_interest(me, Interest::Read)?;
            }
            Ok(())
        },
    );
    reactor.add(ours, Interest::Read, handler)?;
    run(&mut reactor);
    assert_eq!(*log.borrow(), ["read", "write", "write", "write", "read"]);
    Ok(())
}

#[test]
fn interest_in_writing_lost_while_reading_holds_in_the_same_turn() -> io::Result<()> {
    let (ours, _peer) = ready_pair()?;
    let calls = Count::default();
    let mut reactor = Reactor::new()?;
    let seen = calls.clone();
    let handler = Both::new(
        move |reactor: &mut Reactor, me, stream: &TcpStream| {
            add_one(&seen);
            read(stream)?;
            reactor.set_interest(me, Interest::Read)
        },
        |_: &mut Reactor, _, _: &TcpStream| panic!("nobody asks any more"),
    );
    reactor.add(ours, Interest::ReadWrite, handler)?;
    reactor.add_timer(SOON, Reactor::stop);
    run(&mut reactor);
    assert_eq!(calls.get(), 1);
    Ok(())
}

/// Both are ready in the same turn; the first one to be called takes the interest of the
/// other, whose event is in the batch already, and a timer gives it back.
#[test]
fn a_handler_can_change_the_interest_of_another_in_the_same_turn() -> io::Result<()> {
    let (a, _peer_a) = ready_pair()?;
    let (b, _peer_b) = ready_pair()?;
    let (log, tokens) = (Log::default(), Rc::new(RefCell::new(Vec::new())));
    let mut reactor = Reactor::new()?;
    for stream in [a, b] {
        let (seen, all) = (log.clone(), tokens.clone());
        let token = reactor.add_reader(stream, move |reactor, me, stream| {
            read(stream)?;
            if !seen.borrow().is_empty() {
                seen.borrow_mut().push("second");
                reactor.stop();
                return Ok(());
            }
            seen.borrow_mut().push("first");
            let other = *all.borrow().iter().find(|it| **it != me).expect("two");
            reactor.set_interest(other, Interest::None)?;
            let seen = seen.clone();
            reactor.add_timer(SOON, move |reactor| {
                seen.borrow_mut().push("timer");
                reactor
                    .set_interest(other, Interest::Read)
                    .expect("watched");
            });
            Ok(())
        })?;
        tokens.borrow_mut().push(token);
    }
    run(&mut reactor);
    assert_eq!(*log.borrow(), ["first", "timer", "second"]);
    Ok(())
}

/// The same, but the other is to write instead: the event that says "readable" is void.
#[test]
fn a_source_turned_from_reading_to_writing_is_not_read_in_the_same_turn() -> io::Result<()> {
    let (a, _peer_a) = ready_pair()?;
    let (b, _peer_b) = ready_pair()?;
    let (log, tokens) = (Log::default(), Rc::new(RefCell::new(Vec::<Token>::new())));
    let mut reactor = Reactor::new()?;
    for stream in [a, b] {
        let (reads, writes, all) = (log.clone(), log.clone(), tokens.clone());
        let handler = Both::new(
            move |reactor: &mut Reactor, me: Token, _: &TcpStream| {
                reads.borrow_mut().push("read");
                let other = *all.borrow().iter().find(|it| **it != me).expect("two");
                reactor.remove(me);
                reactor.set_interest(other, Interest::Write)
            },
            move |reactor: &mut Reactor, me: Token, _: &TcpStream| {
                writes.borrow_mut().push("write");
                reactor.remove(me);
                Ok(())
            },
        );
        let token = reactor.add(stream, Interest::Read, handler)?;
        tokens.borrow_mut().push(token);
    }
    run(&mut reactor);
    assert_eq!(*log.borrow(), ["read", "write"]);
    Ok(())
}

// Fairness

/// The flooder's data never ends, so it is ready in each turn. Counted are its calls between
/// the moment when the quiet client can be read and its call: a turn or two.
#[test]
fn a_flooding_client_keeps_nobody_waiting_for_more_than_a_turn_or_two() -> io::Result<()> {
    const CLIENTS: usize = 20;
    let floods = Count::default();
    let sent_at = Rc::new(Cell::new(usize::MAX));
    let waits = Rc::new(RefCell::new(Vec::new()));
    let mut reactor = Reactor::new()?;
    let mut quiet = Vec::new();
    for _ in 0..CLIENTS {
        let (ours, peer) = pair()?;
        quiet.push((ours.try_clone()?, peer));
        let (floods, sent_at, waits) = (floods.clone(), sent_at.clone(), waits.clone());
        reactor.add_reader(ours, move |reactor, _, stream| {
            assert_eq!(read(stream)?, b"x");
            waits.borrow_mut().push(floods.get() - sent_at.get());
            if waits.borrow().len() == CLIENTS {
                reactor.stop();
            }
            Ok(())
        })?;
    }

    let (ours, peer) = ready_pair()?;
    reactor.add_reader(ours, move |_, _, _| {
        if add_one(&floods) == 100 {
            for (ours, peer) in &quiet {
                send(ours, peer, b"x")?;
            }
            sent_at.set(floods.get());
        }
        assert!(floods.get() < 1000, "the quiet clients starve");
        Ok(()) // its byte stays unread
    })?;
    run(&mut reactor);
    assert!(waits.borrow().iter().all(|it| *it <= 2), "{waits:?}");
    drop(peer);
    Ok(())
}
