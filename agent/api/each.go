package api

import (
	"errors"
	"io"

	"google.golang.org/grpc"
)

// Each calls fn for every message of a stream. It gives the error by which the stream has ended, nil if that was its end, or fn's.
func Each[T any](stream grpc.ServerStreamingClient[T], fn func(*T) error) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(m); err != nil {
			return err
		}
	}
}
