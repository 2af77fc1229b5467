//! `GET /metrics`: the server in numbers, in the text format of Prometheus. Everything is counted
//! elsewhere and put together here when somebody asks; no read of a token pays for it. How many lines
//! there are is bounded: by the sources of the config, by the rows that the audit remembers, by the
//! codes that the refreshers tell apart.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::{self, CONTENT_TYPE as TEXT};
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use warp::reply::Response;

use crate::access::Via;
use crate::clock::Now;
use crate::status::{CallsToday, SourceStatus, State, Status, Timings, Traffic};

use super::Door;
use super::handlers::{Site, Visitor};
use super::parts::{SOURCES_OF_A_PART, in_parts};
use super::v1::{self, ApiError};

/// The metrics, without the values of those sources that the client may not see.
///
/// # Errors
/// Nobody who may use the server asks; where the address itself is for metrics, everybody may.
pub(super) async fn metrics(site: &Site, visitor: Visitor<'_>) -> Result<Response, ApiError> {
    let user = match site.door {
        Door::Main => Some(v1::user(site, visitor).await?),
        Door::Metrics => None,
    };
    let now = site.clock.now();
    let user = user.map(Arc::clone);
    let is_limited = user.as_ref().is_some_and(|user| user.is_limited());
    // Who else reads is for those who may do everything.
    let client = user.as_ref().filter(|user| !user.is_default()).map(|user| user.name().to_owned());
    let survey = Arc::new(site.status.survey());
    let sees = move |source: &SourceStatus| {
        user.as_ref().is_none_or(|user| user.may_see(source.name.as_str().as_bytes()))
    };
    let seen = survey.all(now).filter(&sees);
    let scrape = Scrape::new(site.status.clone(), now, client, is_limited, seen);
    let beginning = text_of(scrape);
    let count = survey.count();
    let families = FAMILIES.iter().flat_map(move |family| {
        (0..count).step_by(SOURCES_OF_A_PART).map(move |begin| (family, begin))
    });
    let rest = families.map(move |(family, begin)| {
        let part = survey.part(begin, SOURCES_OF_A_PART, now).filter(&sees);
        let rows = part.flat_map(|source| (family.rows)(&source)).collect();
        let text = text_of(Piece { family, rows });
        // The library begins each time with the name and the meaning, which are to be told once.
        if begin == 0 { text } else { text.splitn(3, '\n').nth(2).unwrap_or_default().to_owned() }
    });
    Ok(in_parts(TEXT, std::iter::once(beginning).chain(rest)))
}

/// What a collector has to say.
fn text_of(collector: impl Collector) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("writing to a String cannot fail");
    text
}

/// Made and allowed, by account and endpoint.
type Calls = BTreeMap<(Arc<str>, Arc<str>), (u32, Option<u32>)>;

/// One look at all that is not told of each source.
#[derive(Debug)]
struct Scrape {
    status: Status,
    now: Now,
    /// How many sources are in each state, in the order of [`State::ALL`].
    states: [u64; State::ALL.len()],
    /// The calls of each account and endpoint, which sources may share.
    calls: Calls,
    /// Whose reads are told; `None`: everybody's.
    client: Option<String>,
    /// Whether there are sources of which nothing may be told.
    is_limited: bool,
}

type Written = Result<(), fmt::Error>;

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let mut page = Page { encoder };
        self.server(&mut page)?;
        self.refreshes(&mut page)?;
        self.access(&mut page)?;
        self.webhooks(&mut page)
    }
}

impl Scrape {
    fn new(
        status: Status,
        now: Now,
        client: Option<String>,
        is_limited: bool,
        sources: impl Iterator<Item = SourceStatus>,
    ) -> Scrape {
        let (states, calls) = ([0; State::ALL.len()], Calls::new());
        let mut scrape = Scrape { status, now, states, calls, client, is_limited };
        for source in sources {
            scrape.states[source.state as usize] += 1;
            if let Some(CallsToday { account, made, limit, .. }) = source.calls {
                scrape.calls.insert((account.name, account.endpoint), (made, limit));
            }
        }
        scrape
    }

    fn server(&self, page: &mut Page<'_>) -> Written {
        page.gauges(
            "wechat_token_build_info",
            "The version that runs; always 1",
            [([("version", env!("CARGO_PKG_VERSION"))], 1_u64)],
        )?;
        page.gauges(
            "wechat_token_start_time_seconds",
            "When the server started, in Unix seconds",
            [(NONE, seconds(self.status.started()))],
        )?;
        let traffic = |via: Via| self.status.traffic(via);
        let by_protocol = |of: fn(&Traffic) -> u64| {
            Via::ALL.map(|via| ([("protocol", via.as_str())], of(traffic(via))))
        };
        page.gauges(
            "wechat_token_connections",
            "Connections that are open",
            by_protocol(|traffic| traffic.open()),
        )?;
        page.counters(
            "wechat_token_accepted_connections",
            "Connections since the start, with those that were refused",
            by_protocol(|traffic| traffic.accepted()),
        )?;
        page.counters(
            "wechat_token_rejected_connections",
            "Connections that were refused since there were too many",
            by_protocol(|traffic| traffic.rejected()),
        )
    }

    fn refreshes(&self, page: &mut Page<'_>) -> Written {
        page.gauges(
            "wechat_token_sources",
            "Sources by their state",
            State::ALL.map(|state| ([("state", state.as_str())], self.states[state as usize])),
        )?;
        let meters = self.status.meters();
        if !self.is_limited {
            self.troubles(page)?;
        }
        let calls = &self.calls;
        page.gauges(
            "wechat_token_calls_today",
            "Calls of the upstream in this Beijing day, by account and endpoint",
            calls.iter().map(|(key, (made, _))| (account(key), f64::from(*made))),
        )?;
        page.gauges(
            "wechat_token_calls_limit",
            "How many calls a day may have, by account and endpoint",
            calls.iter().filter_map(|(key, (_, limit))| Some((account(key), f64::from((*limit)?)))),
        )?;
        page.histogram(
            "wechat_token_upstream_request_duration_seconds",
            "How long requests to the upstream took",
            &meters.upstream,
        )?;
        page.histogram(
            "wechat_token_store_write_duration_seconds",
            "How long writes of tokens to the disk took",
            &meters.store,
        )
    }

    /// What goes wrong with all sources together.
    fn troubles(&self, page: &mut Page<'_>) -> Written {
        let meters = self.status.meters();
        let failures = meters.failures();
        page.counters(
            "wechat_token_refresh_failures",
            "Refreshes of all sources that failed, by class and by the upstream's error code",
            failures
                .iter()
                .map(|(class, code, count)| ([("class", *class), ("code", &**code)], *count)),
        )?;
        page.counters(
            "wechat_token_foreign_fetches",
            "How often a token was refused that should have been good: another system fetches too",
            [(NONE, meters.foreign())],
        )
    }

    fn access(&self, page: &mut Page<'_>) -> Written {
        let readers = self.status.readers(self.now);
        let reads = readers.iter().flat_map(|(source, readers)| {
            let source = source.as_ref().map_or("", |source| source.as_str());
            readers.iter().map(move |who| (source, who))
        });
        let own = |client: &str| self.client.as_ref().is_none_or(|own| own == client);
        page.counters(
            "wechat_token_reads",
            "Tokens given, by client, source and protocol; where there are too many of them, \
             without the source",
            reads.filter(|(_, who)| own(&who.client)).map(|(source, who)| {
                let labels =
                    [("client", &*who.client), ("source", source), ("protocol", who.via.as_str())];
                (labels, who.reads.total)
            }),
        )?;
        page.counters(
            "wechat_token_refusals",
            "Requests that were given nothing, by reason",
            self.status.refusals().map(|(reason, via, count)| {
                ([("reason", reason.as_str()), ("protocol", via.as_str())], count)
            }),
        )
    }
}

impl Scrape {
    /// For those who may do everything: a limited client has no business with the operator's robots.
    fn webhooks(&self, page: &mut Page<'_>) -> Written {
        let webhooks = match self.client {
            None => self.status.webhooks().counts(),
            Some(_) => Vec::new(),
        };
        page.counters(
            "wechat_token_webhook_messages",
            "Messages of webhooks that have arrived or were given up, and attempts that failed",
            webhooks.iter().flat_map(|counts| {
                let results = [
                    ("delivered", counts.delivered),
                    ("failed_attempt", counts.failed_attempts),
                    ("given_up", counts.given_up),
                ];
                results.map(|(result, count)| {
                    ([("webhook", &*counts.webhook), ("result", result)], count)
                })
            }),
        )
    }
}

/// A number of each source.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    rows: fn(&SourceStatus) -> Vec<Row>,
}

/// Labels, and a value.
type Row = (Vec<(&'static str, String)>, f64);

/// The row of a source, if it has this number.
fn row(source: &SourceStatus, value: Option<f64>) -> Vec<Row> {
    let labels = || vec![("source", source.name.as_str().to_owned())];
    value.map(|value| (labels(), value)).into_iter().collect()
}

/// What is told of each source.
static FAMILIES: &[Family] = &[
    Family {
        name: "wechat_token_expiry_timestamp_seconds",
        help: "When the token ends, in Unix seconds",
        kind: MetricType::Gauge,
        rows: |source| row(source, source.token.map(|token| seconds(token.expires_at))),
    },
    Family {
        name: "wechat_token_promised_seconds",
        help: "How long a client may rely on the token; 0 where there is none",
        kind: MetricType::Gauge,
        rows: |source| {
            let promised = source.token.map_or(0.0, |token| token.promised.as_secs_f64());
            row(source, Some(promised))
        },
    },
    Family {
        name: "wechat_token_last_success_timestamp_seconds",
        help: "When the request was sent that brought the token or confirmed it, in Unix seconds",
        kind: MetricType::Gauge,
        rows: |source| row(source, source.token.map(|token| seconds(token.fetched_at))),
    },
    Family {
        name: "wechat_token_failing",
        help: "Whether the last refresh failed",
        kind: MetricType::Gauge,
        rows: |source| row(source, Some(f64::from(u8::from(source.condition.is_failing)))),
    },
    Family {
        name: "wechat_token_memory_only",
        help: "Whether the token would be lost in a restart, since the disk refuses",
        kind: MetricType::Gauge,
        rows: |source| row(source, Some(f64::from(u8::from(!source.condition.is_on_disk)))),
    },
    Family {
        name: "wechat_token_refreshes",
        help: "Refreshes since the start, by what came of them",
        kind: MetricType::Counter,
        rows: |source| {
            let SourceStatus { name, condition, .. } = source;
            let results = [("succeeded", condition.renewed), ("failed", condition.failed)];
            let row = |(result, count): (&str, u32)| {
                let labels =
                    vec![("source", name.as_str().to_owned()), ("result", result.to_owned())];
                (labels, f64::from(count))
            };
            results.map(row).into()
        },
    },
];

/// Some rows of a family.
struct Piece {
    family: &'static Family,
    rows: Vec<Row>,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Piece").field(&self.family.name).finish()
    }
}

impl Collector for Piece {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Written {
        let Family { name, help, kind, .. } = self.family;
        let is_counter = matches!(kind, MetricType::Counter);
        let mut family = encoder.encode_descriptor(name, help, None, *kind)?;
        for (labels, value) in &self.rows {
            let mut metric = family.encode_family(labels)?;
            if is_counter {
                metric.encode_counter::<NoLabelSet, _, f64>(value, None)?;
            } else {
                metric.encode_gauge(value)?;
            }
        }
        Ok(())
    }
}

/// No labels.
const NONE: [(&str, &str); 0] = [];

fn account((account, endpoint): &(Arc<str>, Arc<str>)) -> [(&'static str, &str); 2] {
    [("account", account), ("endpoint", endpoint)]
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Writes families, one after the other.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> Written {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// The library appends `_total`.
    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> Written {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, timings: &Timings) -> Written {
        let counts = timings.counts();
        let bounds = Timings::BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let total = timings.total().as_secs_f64();
        family.encode_histogram::<NoLabelSet>(total, counts.iter().sum(), &buckets, None)
    }
}
