// Package traceid is the ids of traces: how they go from one process to the next, and into log lines.
//
// A trace follows what somebody has asked for through all processes that work on it: a command, agents, servers of volumes. From one to the next goes W3C Trace Context, as gRPC metadata.
// Agents record spans too (agent/telemetry). Commands and servers of volumes only pass the ids on and log them: a server must start fast, and of OpenTelemetry this package has what costs
// nothing then, no SDK and no exporter.
package traceid
