// Package hold keeps a FUSE mount alive while the server behind it dies and comes back.
//
// # Processes
//
// The holder (Run) opens /dev/fuse, mounts, and starts the server as a child that inherits
//
//	fd 3   /dev/fuse, the same open file description as the holder's
//	fd 4   the backing directory, opened before mounting (so a volume can be mounted over itself)
//	fd 5   the control socket, one end of a SOCK_SEQPACKET pair
//
// The holder does nothing else: it never reads a FUSE request and holds no volume state, so it has no reason to die. As long
// as it has the descriptor the connection lives, and requests wait in the kernel while there is no server. When the server ends
// and the connection is still there, the holder starts another one in takeover mode.
//
// Before it mounts, the holder locks the backing directory, the mount point and the directory of its pid file (flock), and so keeps other
// holders from them. The server inherits the lock of the backing directory with fd 4: it stays while one of the two lives.
//
// The server (Attach, then Session.Serve) takes the descriptors. A first server answers the kernel's INIT and hands the
// request to the holder. A later one gets that INIT replayed, so that it negotiates what its predecessor did, and then asks the
// kernel to send again whatever the predecessor had read and not answered (FUSE_NOTIFY_RESEND, Linux 6.9). Such requests are
// told by Resent: they may have been carried out already.
//
// # Control messages
//
// One JSON object per packet, with at most one descriptor (SCM_RIGHTS). Unknown members are ignored and unknown operations are
// logged, so a holder can outlive several versions of the server; a Version that is greater than the receiver's is refused.
//
//	holder → server   hello      first packet; Takeover, Mount, Backing, Init, Negotiated, Restart, Count of stashed packets that follow
//	                  stashed    Ino and its descriptor
//	                  stop       finish the requests in flight and end
//	                  ping       answer with pong and the same Seq
//	server → holder   init       the INIT request as the kernel sent it, and what was negotiated
//	                  ready      the server serves from here on
//	                  fail       it will not serve, and why
//	                  stash      Ino and a descriptor to keep      unstash    Ino to let go
//	                  paused     told to stop, it reads no further requests
//	                  restart    end me politely and start the program in the descriptor, from Path; without one, the same again
//	                  unmount    as SIGTERM to the holder
//	                  pong       Seq of the ping
//
// A packet that the server has sent is never lost with it: the holder reads a dead server's socket to its end before it
// starts the next. So a server stashes a descriptor first and unlinks the name after.
//
// # Deaths
//
// A server that ends before it was ready, or within 100 ms of that, died quickly. Each quick death in a row doubles the wait
// before the next start; after Config.QuickDeaths of them the holder unmounts lazily and gives up. Any other death is answered
// at once. Without FUSE_NOTIFY_RESEND a takeover would leave the requests in flight unanswered for ever, so there the
// holder detaches the dead mount and mounts anew: open files of the old mount fail with ENOTCONN, the path works again.
//
// # Hangs
//
// A server may live and do nothing. The holder asks again and again in two ways: on the control socket, which shows that the process runs, and
// by a request to the mount that needs no disk (AliveAttr), which shows that requests are read and answered. If either isn't answered for
// Config.HangTimeout, the server gets SIGQUIT, for its stacks, then SIGKILL, and is replaced as one that died. What is slow because of a
// disk answers both. One case doesn't: a page fault of a mapped file can stop all threads of a Go program. So the time that a
// process has a thread in uninterruptible sleep doesn't count. A request to the mount that the next server doesn't answer either isn't held against it.
//
// # Programs
//
// The holder keeps the program of its servers open, and starts them from the descriptor: a server that died comes back as what it was, whatever has
// been installed at its path meanwhile. Another program is on trial until a server of it was ready for 100 ms. If its server ends before,
// or can't be started, the one before is started again, and hears why (Session.Restarted).
//
// A server is taken for dead when its control socket is closed, which comes after its last read of a request, even if its process can't end
// yet because it waits for the mount it served. WithOwnFiles makes sure that such a process holds nothing but that.
//
// # Without a holder
//
// ServeDirect mounts and serves in one process, for what needs no takeover. Its mount dies with it.
//
// # Lock order
//
//	holder.mu     stash and saved INIT; taken by the control reader and the main loop, never while sending
//	Session.mu    state of Serve
//
// Neither is held while the other is taken.
package hold
