// ANCHOR: all
// ANCHOR: handbook
//! The handbook's event loop: a reactor on [`polling`], which is epoll on Linux, kqueue on
//! macOS and the BSDs, and a completion port on Windows.
//!
//! | handbook (PHP) | here |
//! |---|---|
//! | `addReadStream($stream, $handler)` | [`Reactor::add_reader`], [`Reactor::add`] with state |
//! | `addWriteStream($stream, $handler)` | [`Reactor::add_writer`], or [`Reactor::set_interest`] |
//! | `removeReadStream`, `removeWriteStream` | [`Reactor::set_interest`] |
//! | `removeStream($stream)` | [`Reactor::remove`], which closes it, too |
//! | `run()` | [`Reactor::run`], ended by [`Reactor::stop`] |
//! | `usleep(100)` when nothing is registered | [`Reactor::run`] returns |
//!
//! A handler does not own the loop. The loop owns its handlers, and lends itself to the one
//! that it calls: so a handler can add, change and remove sources, itself among them.
//!
//! The pattern is Douglas Schmidt's "Reactor: An Object Behavioral Pattern for
//! Demultiplexing and Dispatching Handles for Synchronous Events" (1995).
// ANCHOR_END: handbook

// ANCHOR: modules
use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

pub use polling::AsSource;
use polling::{Event, Events, PollMode, Poller};

mod acceptor;
// ANCHOR_END: modules

// ANCHOR: interest
/// What the kernel should report of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Nothing: the loop keeps the source, the kernel does not watch it. Even a reset by the
    /// peer goes unnoticed until there is interest again.
    None,
    /// That a read, or an accept, has something to bring: data, a newcomer, the end, an error.
    /// A hint: somebody else may be faster.
    Read,
    /// That there is room to write something. This is nearly always so: ask only while bytes wait.
    Write,
    /// Both.
    ReadWrite,
}

impl Interest {
    fn reads(self) -> bool {
        matches!(self, Interest::Read | Interest::ReadWrite)
    }

    fn writes(self) -> bool {
        matches!(self, Interest::Write | Interest::ReadWrite)
    }
}
// ANCHOR_END: interest

// ANCHOR: token
/// Names a source of one [`Reactor`]. When the source is removed its token names nothing,
/// even if the next source gets the same descriptor and the same place. (On 32-bit systems
/// that is true for 65,535 sources at a time, and 65,536 sources in one place.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(usize);

impl Token {
    /// A token is the key that the kernel hands back with each event. Its lower half is the
    /// place of the source, its upper half counts how often that place was given up.
    const HALF: u32 = usize::BITS / 2;

    fn new(index: usize, generation: u32) -> Token {
        Token(index | (generation as usize) << Token::HALF)
    }

    fn index(self) -> usize {
        self.0 & (usize::MAX >> Token::HALF)
    }
}
// ANCHOR_END: token

// ANCHOR: handler
/// What to do when a source is ready. It is given the loop, its own token and the source.
///
/// A call does a bounded piece of work (one read, say) and never blocks: all other sources
/// wait meanwhile. What it leaves is reported again on the next turn.
///
/// Any error removes the source, WouldBlock too: readiness is a hint, so a handler takes that
/// one for `Ok(())`.
pub trait Handler<S> {
    /// The source can be read: data, a newcomer to accept, the end, or an error.
    fn readable(&mut self, reactor: &mut Reactor, token: Token, source: &S) -> io::Result<()>;

    /// The source can be written, or has failed.
    fn writable(&mut self, reactor: &mut Reactor, token: Token, source: &S) -> io::Result<()>;

    /// One of the others has returned this error, or the kernel refuses what they asked for;
    /// the source has been removed, and is closed after this call. The error is written to
    /// stderr unless the handler knows better.
    fn failed(&mut self, reactor: &mut Reactor, error: io::Error) {
        let _ = reactor;
        let _ = writeln!(io::stderr(), "{error}");
    }
}
// ANCHOR_END: handler

// ANCHOR: function
/// A function as a handler: called for whatever its source is ready for.
struct Function<F>(F);

impl<S, F> Handler<S> for Function<F>
where
    F: FnMut(&mut Reactor, Token, &S) -> io::Result<()>,
{
    fn readable(&mut self, reactor: &mut Reactor, token: Token, source: &S) -> io::Result<()> {
        (self.0)(reactor, token, source)
    }

    fn writable(&mut self, reactor: &mut Reactor, token: Token, source: &S) -> io::Result<()> {
        (self.0)(reactor, token, source)
    }
}
// ANCHOR_END: function

// ANCHOR: entry
/// A source with its handler, whatever types they have.
trait Entry {
    fn source(&self) -> &dyn AsSource;
    fn readable(&mut self, reactor: &mut Reactor, token: Token) -> io::Result<()>;
    fn writable(&mut self, reactor: &mut Reactor, token: Token) -> io::Result<()>;
    fn failed(&mut self, reactor: &mut Reactor, error: io::Error);
}

impl<S: AsSource, H: Handler<S>> Entry for (S, H) {
    fn source(&self) -> &dyn AsSource {
        &self.0
    }

    fn readable(&mut self, reactor: &mut Reactor, token: Token) -> io::Result<()> {
        self.1.readable(reactor, token, &self.0)
    }

    fn writable(&mut self, reactor: &mut Reactor, token: Token) -> io::Result<()> {
        self.1.writable(reactor, token, &self.0)
    }

    fn failed(&mut self, reactor: &mut Reactor, error: io::Error) {
        self.1.failed(reactor, error);
    }
}
// ANCHOR_END: entry

// ANCHOR: slot
/// A place for a source: 24 bytes, and one allocation for the source with its handler.
struct Slot {
    generation: u32,
    /// What the handlers want to hear.
    wanted: Interest,
    /// What the kernel was asked.
    asked: Interest,
    /// Taken out while its handler runs: so that it can be lent the loop.
    entry: Option<Box<dyn Entry>>,
}
// ANCHOR_END: slot

// ANCHOR: loose
/// A source out of its slot: while its handler runs, or for good. If it is not put back, it
/// is taken from the kernel before it is closed, even if the handler panics.
struct Loose<'a> {
    poller: &'a Poller,
    token: Token,
    asked: Interest,
    entry: Option<Box<dyn Entry>>,
}

impl Drop for Loose<'_> {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            let (poller, source) = (self.poller, entry.source());
            // This cannot fail for an open, watched source; and there is nobody to tell.
            let _ = ask(poller, source, self.token, self.asked, Interest::None);
        }
    }
}
// ANCHOR_END: loose

// ANCHOR: timer
/// Names a timer of one [`Reactor`]: its deadline, and a number that tells equal ones apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer(Instant, u64);
// ANCHOR_END: timer

// ANCHOR: handle
/// The part of the loop that other threads may touch.
struct Shared {
    poller: Poller,
    woken: AtomicBool,
    stopped: AtomicBool,
}

/// Wakes or stops a [`Reactor`] from another thread, or from a signal handler.
///
/// Both calls set a flag and notify the poller. On Linux that is at most one write(2) to an
/// eventfd, without locks or allocation, so it is async-signal-safe (signal-safety(7)). On
/// macOS and FreeBSD polling allocates for it, so a signal handler must not call it there.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Makes the running loop call what was given to [`Reactor::on_wake`]. Several wakes may
    /// become one call, but as long as the loop runs there is a call after the last wake.
    pub fn wake(&self) -> io::Result<()> {
        self.0.woken.store(true, SeqCst);
        self.0.poller.notify()
    }

    /// Makes [`Reactor::run`] return at the end of its turn. If it does not run, it will
    /// return at once when it is called next.
    pub fn stop(&self) -> io::Result<()> {
        self.0.stopped.store(true, SeqCst);
        self.0.poller.notify()
    }
}
// ANCHOR_END: handle

// ANCHOR: longest-wait
/// The loop looks at its timers once a day at least: macOS refuses to wait for more than
/// three years, and Windows takes more than 49 days as forever.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
// ANCHOR_END: longest-wait

// ANCHOR: actions
type Action = Box<dyn FnOnce(&mut Reactor)>;
type WakeAction = Box<dyn FnMut(&mut Reactor)>;
// ANCHOR_END: actions

// ANCHOR: reactor
/// The loop: it sleeps until sources are ready or timers are due, and calls their handlers.
///
/// ```
/// use ch03_reactor::Reactor;
/// use std::{io::ErrorKind, net::{TcpListener, TcpStream}};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// listener.set_nonblocking(true)?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
///
/// let mut reactor = Reactor::new()?;
/// reactor.add_reader(listener, |reactor, token, listener| {
///     match listener.accept() {
///         Ok((_connection, peer)) => println!("{peer} connected"),
///         Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()), // a hint only
///         Err(error) => return Err(error),
///     }
///     reactor.remove(token);
///     Ok(())
/// })?;
/// reactor.run()?; // returns: no source and no timer is left
/// # drop(client);
/// # std::io::Result::Ok(())
/// ```
pub struct Reactor {
    shared: Arc<Shared>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    timers: BTreeMap<Timer, Action>,
    timers_made: u64,
    on_wake: Option<WakeAction>,
}
// ANCHOR_END: reactor

// ANCHOR: new
impl Reactor {
    /// Makes an empty loop. Fails when the system has no descriptor left for the poller.
    pub fn new() -> io::Result<Reactor> {
        let poller = Poller::new()?;
        let (woken, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Reactor {
            shared: Arc::new(Shared {
                poller,
                woken,
                stopped,
            }),
            slots: Vec::new(),
            free: Vec::new(),
            timers: BTreeMap::new(),
            timers_made: 0,
            on_wake: None,
        })
    }
    // ANCHOR_END: new

    // ANCHOR: add-function
    /// Adds a source and calls `handler` whenever it can be read. The source must be
    /// non-blocking. When `handler` returns an error, that is written to stderr and the
    /// source is removed. See [`Reactor`] for an example.
    pub fn add_reader<S: AsSource + 'static>(
        &mut self,
        source: S,
        handler: impl FnMut(&mut Reactor, Token, &S) -> io::Result<()> + 'static,
    ) -> io::Result<Token> {
        self.add(source, Interest::Read, Function(handler))
    }

    /// Adds a source and calls `handler` whenever it can be written: a socket that is
    /// connecting, say. Otherwise like [`add_reader`](Reactor::add_reader).
    ///
    /// ```
    /// # use ch03_reactor::Reactor;
    /// # use std::{io::Write, net::{TcpListener, TcpStream}};
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_nonblocking(true)?;
    /// let mut reactor = Reactor::new()?;
    /// reactor.add_writer(stream, |reactor, token, mut stream| {
    ///     reactor.remove(token); // or it is called again at once, and again
    ///     stream.write(b"hello").map(|_| ())
    /// })?;
    /// reactor.run()?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn add_writer<S: AsSource + 'static>(
        &mut self,
        source: S,
        handler: impl FnMut(&mut Reactor, Token, &S) -> io::Result<()> + 'static,
    ) -> io::Result<Token> {
        self.add(source, Interest::Write, Function(handler))
    }
    // ANCHOR_END: add-function

    // ANCHOR: add-example
    /// Adds a non-blocking source with a handler that keeps state and serves both directions.
    /// The loop owns both from now on. When the kernel cannot watch the source this fails, and
    /// both are dropped: it is a regular file, say, or is watched by this loop already.
    ///
    /// ```
    /// # use ch03_reactor::{Handler, Interest, Reactor, Token};
    /// # use std::{io::{self, ErrorKind}, net::UdpSocket};
    /// struct Received(usize);
    /// impl Handler<UdpSocket> for Received {
    ///     fn readable(&mut self, reactor: &mut Reactor, me: Token, socket: &UdpSocket)
    ///         -> io::Result<()> {
    ///         match socket.recv(&mut [0; 1500]) {
    ///             Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
    ///             count => self.0 += count?,
    ///         }
    ///         println!("{} bytes", self.0);
    ///         Ok(reactor.remove(me))
    ///     }
    ///     // ... and the same for writable
    /// #   fn writable(&mut self, _: &mut Reactor, _: Token, _: &UdpSocket) -> io::Result<()> {
    /// #       Ok(())
    /// #   }
    /// }
    /// # let (peer, socket) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// # peer.send_to(b"hello", socket.local_addr()?)?;
    /// # socket.set_nonblocking(true)?;
    /// let mut reactor = Reactor::new()?;
    /// reactor.add(socket, Interest::Read, Received(0))?;
    /// reactor.run()?;
    /// # io::Result::Ok(())
    /// ```
    // ANCHOR_END: add-example
    // ANCHOR: add
    pub fn add<S: AsSource + 'static>(
        &mut self,
        source: S,
        interest: Interest,
        handler: impl Handler<S> + 'static,
    ) -> io::Result<Token> {
        let index = self.free.pop().unwrap_or_else(|| {
            let (wanted, asked) = (Interest::None, Interest::None);
            self.slots.push(Slot {
                generation: 0,
                wanted,
                asked,
                entry: None,
            });
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.entry = Some(Box::new((source, handler)));
        let token = Token::new(index, slot.generation);
        let added = self.set_interest(token, interest);
        if added.is_err() {
            self.remove(token);
        }
        added.map(|()| token)
    }
    // ANCHOR_END: add

    // ANCHOR: set-interest-example
    /// Changes what the kernel should report of a source. A token that names nothing is
    /// ignored. The kernel is told at once, or, from the source's own handler, after that.
    ///
    /// ```
    /// # use ch03_reactor::{Interest, Reactor};
    /// # use std::{net::{TcpListener, TcpStream}, time::Duration};
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// listener.set_nonblocking(true)?;
    /// let client = TcpStream::connect(listener.local_addr()?)?;
    /// let mut reactor = Reactor::new()?;
    /// let token = reactor.add_reader(listener, |reactor, token, _| Ok(reactor.remove(token)))?;
    /// reactor.set_interest(token, Interest::None)?; // the client has to wait ...
    /// reactor.add_timer(Duration::from_millis(1), move |reactor| {
    ///     reactor.set_interest(token, Interest::Read).expect("a listener"); // ... until now
    /// });
    /// reactor.run()?;
    /// # std::io::Result::Ok(())
    /// ```
    // ANCHOR_END: set-interest-example
    // ANCHOR: set-interest
    pub fn set_interest(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        let Some(slot) = get(&mut self.slots, token) else {
            return Ok(());
        };
        slot.wanted = interest;
        match &slot.entry {
            Some(entry) => {
                ask(
                    &self.shared.poller,
                    entry.source(),
                    token,
                    slot.asked,
                    interest,
                )?;
                slot.asked = interest;
                Ok(())
            }
            None => Ok(()), // its handler runs: dispatch will ask
        }
    }
    // ANCHOR_END: set-interest

    // ANCHOR: remove
    /// Removes a source and drops it with its handler, which closes it. Events that were
    /// already reported for it are forgotten. A token that names nothing is ignored.
    pub fn remove(&mut self, token: Token) {
        let Some(slot) = get(&mut self.slots, token) else {
            return;
        };
        let loose = Loose {
            poller: &self.shared.poller,
            token,
            asked: slot.asked,
            entry: slot.entry.take(), // none while its handler runs: dispatch will drop it
        };
        slot.generation = slot.generation.wrapping_add(1);
        slot.asked = Interest::None;
        self.free.push(token.index());
        drop(loose);
    }
    // ANCHOR_END: remove

    // ANCHOR: add-timer
    /// Calls `action` once, not before `after` has passed on the monotonic clock. Timers that
    /// are due together are called in the order of their deadlines.
    ///
    /// ```
    /// # use ch03_reactor::Reactor;
    /// # use std::time::Duration;
    /// let mut reactor = Reactor::new()?;
    /// let late = reactor.add_timer(Duration::from_secs(60), |_| println!("too late"));
    /// reactor.add_timer(Duration::from_millis(1), move |reactor| reactor.cancel(late));
    /// reactor.run()?; // returns after a millisecond
    /// # std::io::Result::Ok(())
    /// ```
    pub fn add_timer(
        &mut self,
        after: Duration,
        action: impl FnOnce(&mut Reactor) + 'static,
    ) -> Timer {
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        self.timers_made += 1;
        let timer = Timer(Instant::now() + after.min(CENTURY), self.timers_made);
        self.timers.insert(timer, Box::new(action));
        timer
    }

    /// Takes a timer back. One that has fired, or was canceled before, is ignored.
    pub fn cancel(&mut self, timer: Timer) {
        self.timers.remove(&timer);
    }
    // ANCHOR_END: add-timer

    // ANCHOR: on-wake
    /// Sets what is called after a [`Handle::wake`]. It keeps nothing alive: `run` returns
    /// all the same when no source and no timer is left.
    ///
    /// ```
    /// # use ch03_reactor::Reactor;
    /// # use std::{sync::mpsc, thread, time::Duration};
    /// let mut reactor = Reactor::new()?;
    /// let (handle, (results, mailbox)) = (reactor.handle(), mpsc::channel());
    /// thread::spawn(move || results.send(6 * 7).map(|()| handle.wake()));
    /// reactor.on_wake(move |reactor| {
    ///     for result in mailbox.try_iter() { // all of them: wakes coalesce
    ///         assert_eq!(result, 42);
    ///         reactor.stop();
    ///     }
    /// });
    /// reactor.add_timer(Duration::from_secs(60), |_| ()); // keeps the loop running
    /// reactor.run()?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn on_wake(&mut self, action: impl FnMut(&mut Reactor) + 'static) {
        self.on_wake = Some(Box::new(action));
    }
    // ANCHOR_END: on-wake

    // ANCHOR: handle-of
    /// A handle for other threads and for signal handlers.
    ///
    /// ```
    /// # use ch03_reactor::Reactor;
    /// # use std::{thread, time::Duration};
    /// let mut reactor = Reactor::new()?;
    /// let handle = reactor.handle();
    /// reactor.add_timer(Duration::from_secs(60), |_| ());
    /// thread::spawn(move || handle.stop());
    /// reactor.run()?; // returns at once
    /// # std::io::Result::Ok(())
    /// ```
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }
    // ANCHOR_END: handle-of

    // ANCHOR: stop
    /// Makes [`run`](Reactor::run) return at the end of this turn: after the handlers of all
    /// sources that are ready and of all timers that are due. Sources and timers stay for
    /// another `run`.
    ///
    /// ```
    /// # use ch03_reactor::Reactor;
    /// # use std::time::Duration;
    /// let mut reactor = Reactor::new()?;
    /// reactor.add_timer(Duration::from_secs(60), |_| println!("never"));
    /// reactor.add_timer(Duration::from_millis(1), |reactor| reactor.stop());
    /// reactor.run()?; // returns after a millisecond
    /// # std::io::Result::Ok(())
    /// ```
    pub fn stop(&mut self) {
        self.shared.stopped.store(true, SeqCst);
    }
    // ANCHOR_END: stop

    // ANCHOR: run
    /// Calls handlers until somebody calls `stop`, or no source and no timer is left; a source
    /// with no interest counts too. Fails only when the kernel cannot wait: the sources have
    /// their errors to themselves. A panic of a handler passes through and closes its source;
    /// the loop is for dropping then. A handler must not call it.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::new();
        while !self.shared.stopped.swap(false, SeqCst) && self.has_work() {
            let deadline = self.timers.first_key_value().map(|(timer, _)| timer.0);
            let left = deadline.map(|it| it.saturating_duration_since(Instant::now()));
            let timeout = left.map(|it| it.min(LONGEST_WAIT));
            events.clear();
            let shared = Arc::clone(&self.shared);
            shared.poller.wait(&mut events, timeout)?;

            for event in events.iter() {
                self.dispatch(&shared, event);
            }
            self.fire_timers();
            if self.shared.woken.swap(false, SeqCst)
                && let Some(mut action) = self.on_wake.take()
            {
                action(self);
                self.on_wake.get_or_insert(action); // unless the action has set another
            }
        }
        Ok(())
    }

    fn has_work(&self) -> bool {
        self.slots.len() > self.free.len() || !self.timers.is_empty()
    }
    // ANCHOR_END: run

    // ANCHOR: dispatch
    fn dispatch(&mut self, shared: &Arc<Shared>, event: Event) {
        self.expect_poller_of(shared);
        let token = Token(event.key);
        // A handler may have removed this source earlier in the turn, and another one may
        // have taken its place: then the generation differs, and the event is stale.
        let Some(slot) = get(&mut self.slots, token) else {
            return;
        };
        let mut loose = Loose {
            poller: &shared.poller,
            token,
            asked: slot.asked,
            entry: slot.entry.take(),
        };
        let Some(entry) = &mut loose.entry else {
            return;
        };
        // ANCHOR_END: dispatch

        // ANCHOR: call
        let mut result = Ok(());
        if event.readable && self.wanted(token).reads() {
            result = entry.readable(self, token);
        }
        // The read handler may have removed its source, or its interest in writing.
        if result.is_ok() && event.writable && self.wanted(token).writes() {
            result = entry.writable(self, token);
        }
        self.expect_poller_of(shared);
        // ANCHOR_END: call

        // ANCHOR: settle
        let wanted = self.wanted(token);
        let (poller, asked) = (loose.poller, loose.asked);
        let told = result.and_then(|()| ask(poller, entry.source(), token, asked, wanted));
        if let Err(error) = told {
            self.remove(token);
            entry.failed(self, error);
        } else if let Some(slot) = get(&mut self.slots, token) {
            slot.asked = wanted;
            slot.entry = loose.entry.take();
        } else {
            loose.asked = wanted; // it has removed itself: here it is dropped, and closed
        }
    }
    // ANCHOR_END: settle

    // ANCHOR: wanted
    /// The events of a turn belong to one poller; but a handler is lent the loop, and could
    /// put another one in its place.
    fn expect_poller_of(&self, shared: &Arc<Shared>) {
        let same = Arc::ptr_eq(shared, &self.shared);
        assert!(same, "a handler has exchanged the loop that runs it");
    }

    /// What a source wants; nothing if it is gone.
    fn wanted(&mut self, token: Token) -> Interest {
        get(&mut self.slots, token).map_or(Interest::None, |slot| slot.wanted)
    }
    // ANCHOR_END: wanted

    // ANCHOR: fire-timers
    fn fire_timers(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.timers.first_entry()
            && first.key().0 <= now
        {
            let action = first.remove();
            action(self);
        }
    }
}
// ANCHOR_END: fire-timers

// ANCHOR: drop
impl Drop for Reactor {
    fn drop(&mut self) {
        // A handle may keep the poller alive for longer than the sources.
        for index in 0..self.slots.len() {
            self.remove(Token::new(index, self.slots[index].generation));
        }
    }
}
// ANCHOR_END: drop

// ANCHOR: get
/// The slot that a token names, if that is still the same source.
fn get(slots: &mut [Slot], token: Token) -> Option<&mut Slot> {
    let slot = slots.get_mut(token.index())?;
    (Token::new(token.index(), slot.generation) == token).then_some(slot)
}
// ANCHOR_END: get

// ANCHOR: ask
/// Tells the kernel what to report of a source, in level mode: whatever a handler leaves
/// undone is reported again, and nothing has to be armed anew after an event.
fn ask(
    poller: &Poller,
    source: &dyn AsSource,
    token: Token,
    asked: Interest,
    wanted: Interest,
) -> io::Result<()> {
    let event = Event::new(token.0, wanted.reads(), wanted.writes());
    let source = source.source();
    match (asked, wanted) {
        (asked, wanted) if asked == wanted => Ok(()),
        // SAFETY: a source must be deleted from the poller before it is closed. The source
        // is owned by its entry and lent out only as `&S`, so nothing closes it before the
        // entry is dropped. An entry leaves its slot only as a `Loose` one, which deletes the
        // source first even while a panic unwinds, and from the poller that it was added to;
        // and `Reactor::drop` empties all slots. What is left to trust is `as_fd`, which must
        // name the same descriptor each time, as those of std and socket2 do.
        (Interest::None, _) => unsafe { poller.add_with_mode(&source, event, PollMode::Level) },
        // Watching for nothing is not enough: the kernel reports a hang-up all the same,
        // again and again.
        (_, Interest::None) => poller.delete(source),
        _ => poller.modify_with_mode(source, event, PollMode::Level),
    }
}
// ANCHOR_END: ask
// ANCHOR_END: all
