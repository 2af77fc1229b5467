//! `GET /metrics`: the server in numbers, in the text format of Prometheus. Everything is counted
//! elsewhere and put together here when somebody asks; no read of a token pays for it. How many lines
//! there are is bounded: by the sources of the config, by the rows that the audit remembers, by the
//! codes that the refreshers tell apart.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::{self, CONTENT_TYPE as TEXT};
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::Response;

use crate::access::Via;
use crate::clock::Now;
use crate::status::{SourceStatus, State, Status, Timings, Traffic};

use super::Door;
use super::handlers::{Site, Visitor};
use super::v1::{self, ApiError, with};

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
    let sees = |name: &str| user.is_none_or(|user| user.may_see(name.as_bytes()));
    let sources = site.status.sources(now).filter(|source| sees(source.name.as_str())).collect();
    // Who else reads is for those who may do everything.
    let client = user.filter(|user| !user.is_default()).map(|user| user.name().to_owned());
    let scrape = Scrape { status: site.status.clone(), now, sources, client };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("writing to a String cannot fail");
    Ok(with(Response::new(text.into()), CONTENT_TYPE, HeaderValue::from_static(TEXT)))
}

/// One look at everything.
#[derive(Debug)]
struct Scrape {
    status: Status,
    now: Now,
    sources: Vec<SourceStatus>,
    /// Whose reads are told; `None`: everybody's.
    client: Option<String>,
}

type Written = Result<(), fmt::Error>;

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let mut page = Page { encoder };
        self.server(&mut page)?;
        self.tokens(&mut page)?;
        self.refreshes(&mut page)?;
        self.access(&mut page)
    }
}

impl Scrape {
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
            "Connections that were refused since all places were taken",
            by_protocol(|traffic| traffic.rejected()),
        )
    }

    fn tokens(&self, page: &mut Page<'_>) -> Written {
        page.gauges(
            "wechat_token_sources",
            "Sources by their state",
            State::ALL.map(|state| {
                let count = self.sources.iter().filter(|source| source.state == state).count();
                ([("state", state.as_str())], count as u64)
            }),
        )?;
        let of_each = |of: fn(&SourceStatus) -> Option<f64>| {
            self.sources
                .iter()
                .filter_map(move |source| Some(([("source", source.name.as_str())], of(source)?)))
        };
        page.gauges(
            "wechat_token_expiry_timestamp_seconds",
            "When the token ends, in Unix seconds",
            of_each(|source| Some(seconds(source.token?.expires_at))),
        )?;
        page.gauges(
            "wechat_token_promised_seconds",
            "How long a client may rely on the token; 0 where there is none",
            of_each(|source| Some(source.token.map_or(0.0, |token| token.promised.as_secs_f64()))),
        )?;
        page.gauges(
            "wechat_token_last_success_timestamp_seconds",
            "When the request was sent that brought the token or confirmed it, in Unix seconds",
            of_each(|source| Some(seconds(source.token?.fetched_at))),
        )?;
        page.gauges(
            "wechat_token_failing",
            "Whether the last refresh failed",
            of_each(|source| Some(f64::from(u8::from(source.condition.is_failing)))),
        )?;
        page.gauges(
            "wechat_token_memory_only",
            "Whether the token would be lost in a restart, since the disk refuses",
            of_each(|source| Some(f64::from(u8::from(!source.condition.is_on_disk)))),
        )
    }

    fn refreshes(&self, page: &mut Page<'_>) -> Written {
        page.counters(
            "wechat_token_refreshes",
            "Refreshes since the start, by what came of them",
            self.sources.iter().flat_map(|source| {
                let SourceStatus { name, condition, .. } = source;
                let results = [("succeeded", condition.renewed), ("failed", condition.failed)];
                results.map(|(result, count)| {
                    ([("source", name.as_str()), ("result", result)], u64::from(count))
                })
            }),
        )?;
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
        )?;
        let calls = self.calls();
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

    /// The calls of each account and endpoint, which sources may share.
    fn calls(&self) -> BTreeMap<(&str, &str), (u32, Option<u32>)> {
        let mut by_account = BTreeMap::new();
        for calls in self.sources.iter().filter_map(|source| source.calls.as_ref()) {
            let key = (&*calls.account.name, &*calls.account.endpoint);
            by_account.insert(key, (calls.made, calls.limit));
        }
        by_account
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

/// No labels.
const NONE: [(&str, &str); 0] = [];

fn account<'a>((account, endpoint): &(&'a str, &'a str)) -> [(&'static str, &'a str); 2] {
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
        // The library takes the largest number for infinity.
        let bounds = Timings::BOUNDS.into_iter().chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let total = timings.total().as_secs_f64();
        family.encode_histogram::<NoLabelSet>(total, counts.iter().sum(), &buckets, None)
    }
}
