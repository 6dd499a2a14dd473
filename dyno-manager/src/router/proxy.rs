//! One exchange, from the request's head to the response's.

use std::{convert::Infallible, net::IpAddr, pin::pin, sync::Arc};

use http::{HeaderValue, Request, Response, StatusCode, header::UPGRADE, request};
use hyper::{
    body::{Body, Incoming},
    upgrade::{self, OnUpgrade},
};
use tokio::time::{Instant, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{
    Dial,
    body::{Answer, Relay, Upload},
    client::Client,
    code::Code,
    connect::{connect, open},
    headers::{self, Hop},
    line::{Log, Ticket},
    pages::{self, Form},
    pool::{Lane, Slot},
    progress::Progress,
    settings::Settings,
    table::{Table, Unready},
    upgrade::Splice,
};

/// How often a request starts over because its app's dynos were replaced under it.
const ROUNDS: usize = 3;

/// What all exchanges share.
pub(super) struct Router {
    pub(super) table: Arc<Table>,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) log: Log,
    pub(super) settings: Settings,
    /// The port that clients come in on.
    pub(super) port: u16,
    pub(super) shutdown: CancellationToken,
    /// Connections, and what outlives them.
    pub(super) tasks: TaskTracker,
}

/// Where a request came from and what it asks for, as far as the router cares.
struct Visit {
    host: String,
    hop: Hop,
    form: Form,
}

/// Why there is no response to relay.
enum Failure {
    Code(Code),
    Refused(StatusCode, String),
    Gone,
}

/// A request's wish to switch protocols, and the client's half of the switch.
struct Switch {
    protocol: HeaderValue,
    client: OnUpgrade,
}

/// A dyno's response and all that belongs to it.
struct Received {
    response: Response<Incoming>,
    lane: Lane,
    switch: Option<Switch>,
    progress: Arc<Progress>,
}

/// What sending came to when no response came.
enum Lost {
    Code(Code),
    /// The dyno had closed the idle connection; with the request if none of it was sent.
    Stale(Slot, Option<Box<Request<Upload>>>),
}

impl Router {
    /// Answers one request.
    pub(super) async fn handle(
        self: Arc<Self>,
        client: Arc<Client>,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Infallible> {
        let conflicts = client.next_conflicts();
        let form = Form::of(request.headers());
        let hop = Hop { peer, port: self.port, request_id: headers::request_id(request.headers()) };
        let Some(host) = headers::host(&request) else {
            let cause = "it must name exactly one valid host";
            return Ok(pages::refused(StatusCode::BAD_REQUEST, cause, form, &hop.request_id));
        };
        let visit = Visit { host, hop, form };
        let Some(route) = self.table.route(headers::app_of(&visit.host)) else {
            return Ok(visit.unknown());
        };
        let mut ticket = self.ticket(route.app_id, &request, &visit, client);
        let result = match self.objection(&request, conflicts) {
            Some((status, cause)) => Err(Failure::Refused(status, cause)),
            None => self.exchange(request, &visit, &mut ticket).await,
        };
        Ok(match result {
            Ok(received) => self.answer(received, &visit, ticket),
            Err(failure) => visit.failed(failure, &mut ticket),
        })
    }

    fn ticket(&self, app_id: Uuid, request: &Request<Incoming>, visit: &Visit, client: Arc<Client>) -> Ticket {
        Ticket {
            app_id,
            method: request.method().clone(),
            path: request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            host: headers::without_port(&visit.host).to_owned(),
            request_id: visit.hop.request_id.clone(),
            fwd: headers::forwarded_for(request.headers(), visit.hop.peer),
            dyno: None,
            connect_ms: None,
            service_from: None,
            status: StatusCode::OK,
            bytes: 0,
            client,
            log: self.log.clone(),
            open: true,
        }
    }

    /// Why a request is not for any app, whatever the app.
    fn objection(&self, request: &Request<Incoming>, conflicts: bool) -> Option<(StatusCode, String)> {
        let limit = self.settings.header_bytes;
        if headers::size(request) > limit {
            let cause = format!("request head over {limit} bytes");
            return Some((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, cause));
        }
        if conflicts {
            return Some((StatusCode::BAD_REQUEST, "both Content-Length and Transfer-Encoding".into()));
        }
        headers::objection(request).map(|cause| (StatusCode::BAD_REQUEST, cause.into()))
    }

    /// Finds a dyno, sends it the request and waits for the response's head. A stale connection is replaced once.
    async fn exchange(&self, mut request: Request<Incoming>, visit: &Visit, ticket: &mut Ticket) -> Result<Received, Failure> {
        let replayable = request.method().is_idempotent() && request.body().is_end_stream();
        let mut lane = self.reach(headers::app_of(&visit.host), replayable, ticket).await?;
        let switch = headers::wanted_upgrade(&request).map(|protocol| Switch { protocol, client: upgrade::on(&mut request) });
        let (mut head, body) = request.into_parts();
        headers::to_dyno(&mut head, &visit.host, &visit.hop, switch.as_ref().map(|s| &s.protocol));
        ticket.service_from = Some(Instant::now());
        let spare = (lane.used && replayable).then(|| head.clone());
        let progress = Arc::new(Progress::new());
        let mut outgoing = Request::from_parts(head, Upload::new(body, progress.clone()));
        let response = loop {
            match self.send(lane, outgoing, &progress).await {
                Ok((response, same)) => {
                    lane = same;
                    break response;
                }
                Err(Lost::Code(code)) => return Err(code.into()),
                Err(Lost::Stale(slot, unsent)) => {
                    outgoing = unsent.map(|r| *r).or_else(|| Some(again(spare.clone()?, &progress))).ok_or(Code::H13)?;
                    lane = open(&*self.dial, &self.settings, slot).await?;
                }
            }
        };
        Ok(Received { response, lane, switch, progress })
    }

    /// Finds a dyno that accepts a connection. A restart may replace the dynos between the look at the table and the
    /// attempt to connect; then the new ones are asked.
    async fn reach(&self, app: &str, replayable: bool, ticket: &mut Ticket) -> Result<Lane, Failure> {
        let mut rounds = 1..=ROUNDS;
        loop {
            (ticket.dyno, ticket.connect_ms) = (None, None);
            let upstreams = self.table.ready(app, &self.settings, &*self.dial).await?;
            match connect(&*self.dial, &self.settings, &upstreams, replayable, ticket).await {
                Ok(lane) => return Ok(lane),
                Err(_) if rounds.next().is_some() && self.table.has_moved_on(app, &upstreams) => {}
                Err(code) => return Err(code.into()),
            }
        }
    }

    /// Sends one request and waits for the head of its response.
    async fn send(&self, lane: Lane, request: Request<Upload>, progress: &Progress) -> Result<(Response<Incoming>, Lane), Lost> {
        let Lane { slot, mut sender, used } = lane;
        let mut sending = pin!(sender.try_send_request(request));
        let mut error = loop {
            let limit = progress.before_response(&self.settings).map_err(Lost::Code)?;
            match timeout_at(limit, &mut sending).await {
                Err(_) => continue,
                Ok(Ok(response)) => return Ok((response, Lane { slot, sender, used })),
                Ok(Err(error)) => break error,
            }
        };
        let unsent = error.take_message();
        let error = error.into_error();
        tracing::debug!(dyno = %slot.upstream.backend.name, %error, used, "no response");
        Err(match () {
            () if progress.has_client_failed() => Lost::Code(Code::H27),
            () if error.is_parse() => Lost::Code(Code::H17),
            () if used => Lost::Stale(slot, unsent.map(Box::new)),
            () => Lost::Code(Code::H13),
        })
    }

    /// Turns the dyno's response into the client's.
    fn answer(&self, received: Received, visit: &Visit, mut ticket: Ticket) -> Response<Answer> {
        let Received { mut response, lane, switch, progress } = received;
        ticket.status = response.status();
        let idle = self.settings.idle;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (mut head, body) = response.into_parts();
            headers::to_client(&mut head, None);
            return Response::from_parts(head, Answer::Relay(Box::new(Relay::new(body, ticket, lane, progress, idle))));
        }
        let Some(switch) = switch else {
            // A dyno may not switch unasked (RFC 9110 section 15.2.2); the client would not follow.
            return visit.failed(Code::H17.into(), &mut ticket);
        };
        let dyno = upgrade::on(&mut response);
        let (mut head, _) = response.into_parts();
        let protocol = head.headers.get(UPGRADE).cloned().unwrap_or(switch.protocol);
        headers::to_client(&mut head, Some(&protocol));
        let splice = Splice { ticket, lane, progress, idle, shutdown: self.shutdown.clone() };
        self.tasks.spawn(splice.run(switch.client, dyno));
        Response::from_parts(head, Answer::Page(<_>::default()))
    }
}

impl Visit {
    fn unknown(&self) -> Response<Answer> {
        pages::unknown(&self.host, headers::app_of(&self.host), &self.hop.request_id)
    }

    /// Logs a failure and makes its page.
    fn failed(&self, failure: Failure, ticket: &mut Ticket) -> Response<Answer> {
        match failure {
            Failure::Code(code) => {
                ticket.fault(code);
                pages::fault(code, self.form, &self.hop.request_id)
            }
            Failure::Refused(status, cause) => {
                ticket.refuse(status, &cause);
                pages::refused(status, &cause, self.form, &self.hop.request_id)
            }
            Failure::Gone => {
                ticket.open = false; // the log went with the app
                self.unknown()
            }
        }
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

impl From<Unready> for Failure {
    fn from(unready: Unready) -> Self {
        match unready {
            Unready::Gone => Self::Gone,
            Unready::Code(code) => Self::Code(code),
        }
    }
}

/// The same request once more; it had no body.
fn again(head: request::Parts, progress: &Arc<Progress>) -> Request<Upload> {
    Request::from_parts(head, Upload::empty(progress.clone()))
}
