//! From running totals to the report: the only place where figures are derived.
//!
//! In: a [`Store`] and what is known of the capture. Out: a [`Report`].
//! Deterministic: the same store gives the same report.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{
    attribute::{EndedBy, How, Outcome},
    event::{Origin, PROCESSES_UNPROBED},
    id::{ConnId, RequestId},
    report::{
        self, Ambiguous, Attribution, Capture, Connections, Distribution, Endpoint, Finding, Http,
        Lost, Mode, Outcomes, Overhead, Process, ReasonTotals, Report, RequestRow, Totals, TypeSum,
        Unattributed,
    },
    store::{
        self, EndpointKey, EndpointTotals, ProcessTotals, SettledRequest, Store, Sum, TypeSums,
        Types, Unseen,
    },
};

/// What a report says about the capture itself, beside what was counted.
#[derive(Clone, Debug, Default)]
pub struct CaptureFacts {
    /// Kernel release of the traced machine.
    pub kernel: String,
    /// The capture ends before the trace did.
    pub truncated: bool,
    /// What of the capture could not be read, in words.
    pub damage: Option<String>,
}

/// The report of everything that a store holds.
pub fn report(store: &Store, facts: &CaptureFacts) -> Report {
    let duration_ns = store.duration_ns();
    let processes: Vec<Process> = store.processes().map(process).collect();
    let mut incomplete: Vec<String> = processes
        .iter()
        .flat_map(|process| process.incomplete.clone())
        .collect();
    incomplete.sort();
    incomplete.dedup();
    // Figures of a damaged or made-up capture may be of any size.
    let sum = |figure: fn(&Process) -> u64| total(processes.iter().map(figure));
    let alloc_bytes = sum(|process| process.alloc_bytes);
    let mut endpoints: Vec<Endpoint> = store
        .endpoints()
        .iter()
        .map(|(key, totals)| endpoint(key, totals, store.types(), alloc_bytes))
        .filter(|endpoint| endpoint.requests != 0)
        .collect();
    endpoints.sort_by(|a, b| {
        let key = |endpoint: &Endpoint| {
            (
                endpoint.protocol.clone(),
                endpoint.method.clone(),
                endpoint.route.clone(),
            )
        };
        b.alloc_bytes
            .total
            .cmp(&a.alloc_bytes.total)
            .then_with(|| key(a).cmp(&key(b)))
    });
    let requests = endpoints.iter().map(|endpoint| endpoint.requests).sum();
    let by_cause: BTreeMap<String, u64> = store
        .lost()
        .iter()
        .filter(|(cause, total)| **total != 0 && *cause != PROCESSES_UNPROBED)
        .map(|(cause, total)| (cause.clone(), *total))
        .collect();
    let connections = store.connections();
    let unattributed = unattributed(store, alloc_bytes);
    let mut notes = Vec::new();
    if let Some(unprobed) = store.lost().get(PROCESSES_UNPROBED) {
        notes.push(format!(
            "{unprobed} processes ended before their allocators could be probed, or are traced by \
             another memtrace: what they allocated is not seen"
        ));
    }
    let gaps: Vec<u64> = store
        .processes()
        .filter_map(|totals| Some(totals.fact.as_ref()?.probed_after_ns))
        .filter(|gap_ns| *gap_ns != 0)
        .collect();
    if let Some(longest_ns) = gaps.iter().max() {
        notes.push(format!(
            "{} processes came while the trace ran; their allocators were probed up to {:.0} ms \
             after they began, and what they allocated before is not seen",
            gaps.len(),
            *longest_ns as f64 / 1e6
        ));
    }
    let displaced: u64 = store.processes().map(|totals| totals.displaced_count).sum();
    if displaced != 0 {
        notes.push(format!(
            "{displaced} blocks were handed out at an address whose release was not seen; the \
             earlier block was taken as freed"
        ));
    }
    let mut unseen = Unseen::default();
    store
        .processes()
        .for_each(|totals| unseen.merge(totals.unseen));
    if unseen.frees {
        notes.push(
            "what a garbage collector takes back is not seen: of its heap, figures of what was \
             held, kept or freed know nothing, and are marked ≥"
                .to_owned(),
        );
    }
    if unseen.volume {
        notes.push(
            "of the heap that PHP keeps for a request only the extent is known: it is part of \
             the peak, and of no figure of what was allocated or freed, which are marked ≥"
                .to_owned(),
        );
    }
    Report {
        schema: report::SCHEMA.to_owned(),
        capture: Capture {
            mode: Mode::Exact,
            duration_ns,
            observed_fraction: 1.0,
            events: store.events(),
            events_per_second: report::per_second(store.events(), duration_ns),
            lost: Lost {
                total: total(by_cause.values().copied()),
                by_cause,
            },
            overhead: Overhead::default(),
            truncated: facts.truncated,
            damage: facts.damage.clone(),
            kernel: facts.kernel.clone(),
            why_ended: store.why_ended().unwrap_or_default().to_owned(),
            retain_ns: store.retain_ns(),
            notes,
        },
        totals: Totals {
            requests,
            requests_per_second: report::per_second(requests, duration_ns),
            alloc_bytes,
            alloc_count: sum(|process| process.alloc_count),
            free_bytes: sum(|process| process.free_bytes),
            free_count: sum(|process| process.free_count),
            free_unknown_count: sum(|process| process.free_unknown_count),
            live_bytes: total(
                store
                    .processes()
                    .filter(|totals| !totals.ended)
                    .map(|totals| totals.live_bytes),
            ),
            incomplete,
        },
        findings: findings(&endpoints),
        processes,
        endpoints,
        connections: Connections {
            accepted: connections.accepted,
            found_open: connections.found_open,
            closed: connections.closed,
            open_at_end: connections.open,
            open_max: connections.open_max,
            upgraded: connections.upgraded,
            connected: connections.connected,
        },
        http: Http {
            malformed_requests: connections.malformed_requests,
            malformed_responses: connections.malformed_responses,
            unmatched_responses: connections.unmatched_responses,
            not_http_connections: connections.not_http,
            tls_connections: total(store.processes().map(|totals| totals.tls_connections)),
            tls_unread_connections: total(
                store
                    .processes()
                    .map(|totals| totals.tls_connections.saturating_sub(totals.tls_read)),
            ),
        },
        unattributed,
    }
}

/// The sum, or the largest number if it is larger.
fn total(figures: impl Iterator<Item = u64>) -> u64 {
    figures.fold(0, u64::saturating_add)
}

/// Why requests that came over TLS were not seen in a process, if none was.
fn tls_trouble(totals: &ProcessTotals) -> Option<String> {
    let connections = match totals.tls_connections {
        _ if totals.tls_read != 0 => return None,
        0 => return None,
        1 => "1 connection that it accepted carries TLS".to_owned(),
        n => format!("{n} connections that it accepted carry TLS"),
    };
    let libraries = totals.fact.as_ref().map_or(&[][..], |fact| &fact.tls);
    Some(if libraries.is_empty() {
        format!(
            "{connections}, and no TLS library whose functions can be probed was found in it \
             (OpenSSL, BoringSSL and GnuTLS can, where their symbols are kept): requests on them \
             are not seen"
        )
    } else {
        format!(
            "{connections}, and none of their plaintext came through {}: requests on them are \
             not seen",
            libraries.join(", ")
        )
    })
}

fn process(totals: &ProcessTotals) -> Process {
    let id = totals.process;
    let fact = totals.fact.as_ref();
    Process {
        pid: id.map_or(0, |id| id.pid),
        start_ns: id.map_or(0, |id| id.start_ns),
        parent_pid: fact.map_or(0, |fact| fact.parent_pid),
        exe: fact.map_or_else(String::new, |fact| fact.exe.clone()),
        comm: fact.map_or_else(String::new, |fact| fact.comm.clone()),
        runtime: fact.map_or_else(String::new, |fact| fact.runtime.clone()),
        origin: fact
            .map_or("", |fact| match fact.origin {
                Origin::Attached => "attached",
                Origin::Joined => "joined",
                Origin::Started => "started",
            })
            .to_owned(),
        allocators: fact.map_or_else(Vec::new, |fact| fact.allocators.clone()),
        tls: fact.map_or_else(Vec::new, |fact| fact.tls.clone()),
        trouble: fact
            .map_or_else(Vec::new, |fact| fact.trouble.clone())
            .into_iter()
            .chain(tls_trouble(totals))
            .collect(),
        alloc_bytes: totals.allocated.bytes,
        alloc_count: totals.allocated.count,
        free_bytes: totals.freed.bytes,
        free_count: totals.freed.count + totals.freed_unknown_count,
        free_unknown_count: totals.freed_unknown_count,
        live_bytes: totals.live_bytes,
        incomplete: incomplete(
            totals.unseen,
            &["alloc_count"],
            &["free_bytes", "free_count", "live_bytes"],
            &[
                "alloc_bytes",
                "alloc_count",
                "free_bytes",
                "free_count",
                "live_bytes",
            ],
        ),
    }
}

/// The fields that leave something out: for each kind of it, those that do.
fn incomplete(unseen: Unseen, counts: &[&str], frees: &[&str], volume: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = [
        (unseen.counts, counts),
        (unseen.frees, frees),
        (unseen.volume, volume),
    ]
    .into_iter()
    .filter(|(is_unseen, _)| *is_unseen)
    .flat_map(|(_, names)| names.iter().map(ToString::to_string))
    .collect();
    names.sort();
    names.dedup();
    names
}

/// Types of an endpoint that a report names.
const TYPES_SHOWN_MAX: usize = 20;

/// The types of which most was allocated; those of the same name are one.
fn types_by_bytes(sums: &TypeSums, types: &Types) -> Vec<TypeSum> {
    let mut by_name: BTreeMap<&str, Sum> = BTreeMap::new();
    for (id, sum) in sums.iter() {
        let name = types.name_of(id).unwrap_or_default();
        by_name.entry(name).or_default().merge(sum);
    }
    let mut sorted: Vec<TypeSum> = by_name
        .into_iter()
        .map(|(name, sum)| TypeSum {
            name: name.to_owned(),
            alloc_bytes: sum.bytes,
            alloc_count: sum.count,
        })
        .collect();
    // A runtime that tells no types has nothing to be listed.
    sorted.retain(|of_type| !of_type.name.is_empty() || sums.has_known());
    // Stable, so that those of the same size stay in the order of their names.
    sorted.sort_by_key(|of_type| Reverse(of_type.alloc_bytes));
    sorted.truncate(TYPES_SHOWN_MAX);
    sorted
}

fn endpoint(
    key: &EndpointKey,
    totals: &EndpointTotals,
    types: &Types,
    alloc_bytes_all: u64,
) -> Endpoint {
    // Requests that have not ended are part of the total, not of the quantiles.
    let mut alloc_bytes = distribution(&totals.alloc_bytes);
    alloc_bytes.total = totals.allocated.bytes;
    let mut alloc_count = distribution(&totals.alloc_count);
    alloc_count.total = totals.allocated.count;
    Endpoint {
        protocol: key.protocol.to_owned(),
        method: key.method.clone(),
        route: key.route.clone(),
        requests: totals.requests,
        observed: totals.alloc_bytes.count(),
        in_flight: totals.in_flight,
        outcomes: outcomes(&totals.outcomes),
        status: totals
            .status
            .iter()
            .map(|(status, count)| (status.to_string(), *count))
            .collect(),
        share_of_alloc: report::share(totals.allocated.bytes, alloc_bytes_all),
        alloc_bytes,
        alloc_count,
        peak_bytes: distribution(&totals.peak_bytes),
        retained_bytes: distribution(&totals.retained_bytes),
        duration_ns: distribution(&totals.duration_ns),
        request_bytes: distribution(&totals.request_bytes),
        response_bytes: distribution(&totals.response_bytes),
        free_bytes: totals.freed.bytes,
        free_count: totals.freed.count,
        attribution: How::ALL
            .iter()
            .map(|how| (how, totals.by_rule[how.index()]))
            .filter(|(_, sum)| *sum != Sum::default())
            .map(|(how, sum)| {
                let attribution = Attribution {
                    alloc_bytes: sum.bytes,
                    alloc_count: sum.count,
                };
                (how.name().to_owned(), attribution)
            })
            .collect(),
        stacks: Vec::new(),
        types: types_by_bytes(&totals.types, types),
        incomplete: incomplete(
            totals.unseen,
            &["alloc_count"],
            &["free_bytes", "free_count", "peak_bytes", "retained_bytes"],
            &["alloc_bytes", "alloc_count", "free_bytes", "free_count"],
        ),
    }
}

fn outcomes(counts: &BTreeMap<Outcome, u64>) -> Outcomes {
    let mut all = Outcomes::default();
    for (outcome, count) in counts {
        let ended_by = match outcome {
            Outcome::Complete => {
                all.complete += count;
                continue;
            }
            Outcome::Aborted(ended_by) => {
                all.aborted += count;
                ended_by
            }
            Outcome::NoResponse(ended_by) => {
                all.no_response += count;
                ended_by
            }
        };
        match ended_by {
            EndedBy::Client => all.ended_by_client += count,
            EndedBy::Server => all.ended_by_server += count,
            EndedBy::ProcessEnd => all.ended_by_process_end += count,
        }
    }
    all
}

fn distribution(values: &store::Distribution) -> Distribution {
    Distribution {
        total: values.total(),
        mean: report::mean(values.total(), values.count()),
        p50: values.quantile(0.5),
        p90: values.quantile(0.9),
        p99: values.quantile(0.99),
        max: values.max(),
        ci95: None,
    }
}

fn unattributed(store: &Store, alloc_bytes_all: u64) -> Unattributed {
    let mut all = Unattributed::default();
    let mut unseen = Unseen::default();
    for (reason, totals) in store.unattributed() {
        if totals.allocated == Sum::default() && totals.live_bytes == 0 {
            continue;
        }
        unseen.merge(totals.unseen);
        all.alloc_bytes = all.alloc_bytes.saturating_add(totals.allocated.bytes);
        all.alloc_count += totals.allocated.count;
        all.live_bytes = all.live_bytes.saturating_add(totals.live_bytes);
        all.by_reason.insert(
            reason.name().to_owned(),
            ReasonTotals {
                alloc_bytes: totals.allocated.bytes,
                alloc_count: totals.allocated.count,
                live_bytes: totals.live_bytes,
                share_of_alloc: report::share(totals.allocated.bytes, alloc_bytes_all),
            },
        );
    }
    all.share_of_alloc = report::share(all.alloc_bytes, alloc_bytes_all);
    all.ambiguous = store
        .disputed()
        .map(|(candidates, sum)| Ambiguous {
            candidates: candidates
                .into_iter()
                .map(|key| {
                    key.map_or_else(
                        || "a request without a name".to_owned(),
                        |key| format!("{} {}", key.method, key.route),
                    )
                })
                .collect(),
            alloc_bytes: sum.bytes,
            alloc_count: sum.count,
        })
        .collect();
    all.ambiguous
        .sort_by(|a, b| (b.alloc_bytes, &a.candidates).cmp(&(a.alloc_bytes, &b.candidates)));
    all.incomplete = incomplete(
        unseen,
        &["alloc_count"],
        &["live_bytes"],
        &["alloc_bytes", "alloc_count"],
    );
    all
}

/// Requests seen before a finding is worth a reader's time.
const FINDING_REQUESTS_MIN: u64 = 20;

/// Endpoints of which nearly every request leaves something behind.
fn findings(endpoints: &[Endpoint]) -> Vec<Finding> {
    let mut retaining: Vec<&Endpoint> = endpoints
        .iter()
        .filter(|endpoint| {
            endpoint.observed >= FINDING_REQUESTS_MIN && endpoint.retained_bytes.p50 > 0
        })
        .collect();
    retaining.sort_by_key(|endpoint| Reverse(endpoint.retained_bytes.total));
    retaining
        .into_iter()
        .map(|endpoint| Finding {
            kind: "retains".to_owned(),
            text: format!(
                "{} {} leaves {:.0} bytes behind per request ({} bytes over {} requests): a leak, \
                 a cache that fills, or data kept for a later request",
                endpoint.method,
                endpoint.route,
                endpoint.retained_bytes.mean,
                endpoint.retained_bytes.total,
                endpoint.observed
            ),
        })
        .collect()
}
/// One request by itself.
pub fn request(settled: SettledRequest) -> RequestRow {
    let SettledRequest {
        request: RequestId(request),
        conn: ConnId(connection),
        process,
        endpoint,
        status,
        begin_ns,
        end,
        allocated,
        peak_bytes,
        retained_bytes,
        by_rule,
    } = settled;
    let end = end.as_ref();
    RequestRow {
        request,
        connection,
        pid: process.map(|process| process.pid),
        protocol: endpoint.protocol.to_owned(),
        method: endpoint.method,
        route: endpoint.route,
        status,
        outcome: match end.map(|end| end.outcome) {
            Some(Outcome::Complete) => "complete",
            Some(Outcome::Aborted(_)) => "aborted",
            Some(Outcome::NoResponse(_)) => "no_response",
            None => "in_flight",
        },
        ended_by: match end.map(|end| end.outcome) {
            Some(Outcome::Aborted(by) | Outcome::NoResponse(by)) => Some(match by {
                EndedBy::Client => "client",
                EndedBy::Server => "server",
                EndedBy::ProcessEnd => "process_end",
            }),
            Some(Outcome::Complete) | None => None,
        },
        begin_ns,
        duration_ns: end.map(|end| end.duration_ns),
        request_bytes: end.map(|end| end.request_bytes),
        response_bytes: end.map(|end| end.response_bytes),
        alloc_bytes: allocated.bytes,
        alloc_count: allocated.count,
        peak_bytes,
        retained_bytes,
        attribution: How::ALL
            .map(|how| (how.name(), by_rule[how.index()].bytes))
            .to_vec(),
    }
}
