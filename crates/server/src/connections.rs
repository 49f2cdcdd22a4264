//! Takes connections until the server is to end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::routing::get;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use m3ret::watch::Watch;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{interval, sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use crate::guard::Peer;
use crate::problem::Problem;
use crate::routes::{Service, live, router};
use crate::tls::Tls;

/// How often it is looked whether the server is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often old uploads are looked for.
const ERASE_EVERY: Duration = Duration::from_secs(30);
/// How long open requests may take once the server is to end.
const FAREWELL: Duration = Duration::from_millis(1200);
/// How long an answer may wait for a client that does not read it.
const UNREAD: Duration = Duration::from_secs(30);
/// The pause after a connection that could not be taken, as when too many files are open.
const PAUSE: Duration = Duration::from_millis(50);
/// Connections beyond the others, which learn that the server runs and is busy.
const N_SPARE: usize = 16;
/// How long a client of such a connection may take.
const SPARE: Duration = Duration::from_secs(2);

/// The places of connections. One address that is neither of this machine nor a proxy takes at most half of them.
struct Places {
    room: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    max_of_one: usize,
    /// Addresses through which many clients come.
    shared: Vec<IpAddr>,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place, free again once it is dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    /// The address that it counts for.
    counted: Option<(Arc<Places>, IpAddr)>,
}

impl Places {
    fn new(n_connections: usize, shared: Vec<IpAddr>) -> Self {
        Self {
            room: Arc::new(Semaphore::new(n_connections)),
            spare: Arc::new(Semaphore::new(N_SPARE)),
            max_of_one: n_connections.div_ceil(2),
            shared,
            taken: Mutex::default(),
        }
    }

    /// Returns a place, if the server and the address have one left.
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let permit = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let address = address.to_canonical();
        let is_counted = !address.is_loopback() && !self.shared.contains(&address);
        if is_counted {
            let mut taken = self.taken();
            let n = taken.entry(address).or_default();
            if *n >= self.max_of_one {
                return None;
            }
            *n += 1;
        }
        Some(Place {
            _permit: permit,
            counted: is_counted.then(|| (Arc::clone(self), address)),
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Counts are good, whoever panicked while they were locked.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, address)) = self.counted.take() else {
            return;
        };
        let mut taken = places.taken();
        let n = taken.remove(&address).unwrap_or_default();
        if n > 1 {
            taken.insert(address, n - 1);
        }
    }
}

/// Answers connections that have no place.
fn busy() -> Router {
    Router::new().route("/livez", get(live)).fallback(async || {
        let close = [(header::CONNECTION, "close")];
        (close, Problem::busy()).into_response()
    })
}

/// Serves until the watcher stops it.
pub(crate) async fn run(
    listener: std::net::TcpListener,
    service: &Arc<Service>,
    watcher: &dyn Watch,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener).context("listening")?;
    let (stop, stopped) = watch::channel(false);
    let n_connections = service.limits.n_connections.max(1);
    let places = Places::new(n_connections, service.checker.proxies().to_vec());
    let places = Arc::new(places);
    let taking = take(listener, Arc::clone(service), Arc::clone(&places), stopped);
    let taking = tokio::spawn(taking);
    let erasing = tokio::spawn(erase(Arc::clone(service)));
    while !watcher.is_stopped() {
        sleep(LOOK_EVERY).await;
    }
    taking.abort();
    erasing.abort();
    // Connections end after the request that they are in.
    stop.send_replace(true);
    let n_all = u32::try_from(n_connections).unwrap_or(u32::MAX);
    let _ = timeout(FAREWELL, places.room.acquire_many(n_all)).await;
    Ok(())
}

async fn erase(service: Arc<Service>) {
    let mut ticks = interval(ERASE_EVERY);
    loop {
        ticks.tick().await;
        tokio::task::block_in_place(|| {
            service.spool.erase_old();
            if let Some(tls) = &service.tls {
                tls.renew();
            }
        });
    }
}

async fn take(
    listener: TcpListener,
    service: Arc<Service>,
    places: Arc<Places>,
    stopped: watch::Receiver<bool>,
) {
    let (routes, busy) = (router(&service), busy());
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let place = places.take(peer.ip());
        let spare = match &place {
            Some(_) => None,
            // Without a spare place the connection ends at once: nobody waits for an answer that does not come.
            None => match Arc::clone(&places.spare).try_acquire_owned() {
                Ok(spare) => Some(spare),
                Err(_) => continue,
            },
        };
        let (routes, head) = match &place {
            Some(_) => (routes.clone(), service.limits.head),
            None => (busy.clone(), SPARE.min(service.limits.head)),
        };
        let stopped = stopped.clone();
        let acceptor = service.tls.as_ref().map(Tls::acceptor);
        tokio::spawn(async move {
            let talk = talk(stream, (routes, Peer(peer)), acceptor, stopped, head);
            match spare {
                None => talk.await,
                // Such a connection ends, whatever its client sends.
                Some(_) => drop(timeout(SPARE * 2, talk).await),
            }
            drop((place, spare));
        });
    }
}

async fn talk(
    stream: TcpStream,
    answering: (Router, Peer),
    acceptor: Option<TlsAcceptor>,
    stopped: watch::Receiver<bool>,
    head: Duration,
) {
    // Without it answers only come later.
    let _ = stream.set_nodelay(true);
    // Who does not read an answer must not keep its place.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(UNREAD));
    let stream = Box::pin(stream);
    match acceptor {
        None => serve(stream, answering, stopped, head).await,
        // A client that never ends its greeting must not keep its place.
        Some(acceptor) => {
            if let Ok(Ok(stream)) = timeout(head, acceptor.accept(stream)).await {
                serve(stream, answering, stopped, head).await;
            }
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (routes, peer): (Router, Peer),
    mut stopped: watch::Receiver<bool>,
    head: Duration,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head);
    let routes = TowerToHyperService::new(routes);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        routes.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    // A connection that breaks is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_half_of_the_places_and_a_proxy_all() {
        let proxy = IpAddr::from([192, 0, 2, 1]);
        let places = Arc::new(Places::new(4, vec![proxy]));
        let other = IpAddr::from([192, 0, 2, 2]);
        let first = places.take(other).unwrap();
        let second = places.take(other).unwrap();
        assert!(places.take(other).is_none(), "half of four");
        let mapped = "::ffff:192.0.2.2".parse().unwrap();
        assert!(places.take(mapped).is_none(), "the same address");
        let third = places.take(proxy).unwrap();
        let fourth = places.take(IpAddr::from([127, 0, 0, 1])).unwrap();
        assert!(places.take(proxy).is_none(), "all are taken");
        drop((first, third, fourth));
        assert!(places.take(other).is_some());
        drop(second);
        assert!(places.taken().is_empty());
        let all: Vec<Option<Place>> = (0..4).map(|_| places.take(proxy)).collect();
        assert!(all.iter().all(Option::is_some));
    }
}
