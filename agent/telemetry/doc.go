// Package telemetry is what an agent tells of itself: traces and metrics.
//
// # Traces
//
// A trace follows one thing, as a snapshot of the cluster, over all nodes that have a part in it: Tracing makes spans, and its gRPC options carry their ids from node to node (W3C Trace Context). Spans are
// sent to an OTLP collector if the configuration names one. Ids are made without one as well, since the log lines of all nodes can be put together by them:
// agent/traceid adds them, and passes them on to the servers of volumes.
//
// # Metrics
//
// What is a state (whether a volume serves, how much is dirty) is asked for when Prometheus does (Facts); what is an event (a pause, a stored snapshot) is told when it happens (the methods of Metrics).
// Names begin with graphvol_, and are in Prometheus' base units. They don't change: dashboards and alerts of others rely on them. contrib/ has a dashboard and alert rules, which tests
// compare with the metrics that there are.
//
// Nothing here keeps anything else from working: what can't be sent is dropped, and said in the log once in a while.
package telemetry
