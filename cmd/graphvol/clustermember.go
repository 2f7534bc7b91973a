package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

func (a *app) clusterMemberCmd(f *clusterFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "member",
		Short: "Members of the agents' own etcd: list, add, remove",
		Long: `Shows and changes the members of the etcd that runs inside the agents: to put a new machine in the
place of a lost one, to add a node, or to take one out for good. docs/cluster.md has the steps.
With an etcd that is there already (etcd: endpoints), its own tool does this (etcdctl member).`,
		Example: `  graphvol cluster member list
  graphvol cluster member remove c
  graphvol cluster member add c https://10.1.0.3:7441`,
		Args: func(*cobra.Command, []string) error {
			return usageError{errors.New("choose one of the commands below member")}
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(a.memberListCmd(f), a.memberAddCmd(f), a.memberRemoveCmd(f))
	return cmd
}

// memberRow is what --json tells of a member of etcd.
type memberRow struct {
	Name  string `json:"name"`
	State string `json:"state"` // leader, member, learner, not started
	URL   string `json:"url"`
	ID    string `json:"id"`
}

func rowOfMember(m *api.EtcdMember) memberRow {
	return memberRow{m.GetName(), m.GetState(), m.GetUrl(), m.GetId()}
}

func rowsOfMembers(all []*api.EtcdMember) []memberRow {
	rows := []memberRow{}
	for _, m := range all {
		rows = append(rows, rowOfMember(m))
	}
	return rows
}

func (a *app) memberListCmd(f *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the members",
		Long: `Lists the members as the agent of this machine knows them, also while most of them are away: the
leader, other members that have a vote, a learner, which gets its vote as soon as it has what the
others have, and one that was added and has never come (not started).`,
		Example: `  graphvol cluster member list`,
		Args:    args(cobra.NoArgs, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.ask(func(c api.ClusterClient) error {
				res, err := c.ListMembers(cmd.Context(), &api.ListMembersRequest{})
				if err != nil {
					return err
				}
				rows := rowsOfMembers(res.GetMembers())
				if f.json {
					return printJSON(a.out, struct {
						Members []memberRow `json:"members"`
					}{rows})
				}
				t := newTable(a.out, "MEMBER", "STATE", "URL", "ID")
				for _, r := range rows {
					t.row(r.Name, r.State, r.URL, r.ID)
				}
				return t.flush()
			})
		},
	}
}

func (a *app) memberAddCmd(f *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME URL",
		Short: "Add a member",
		Long: `Adds the etcd of the node NAME, which the others reach at URL (etcd: listen of its configuration).
Then start its agent, which joins by itself if its state directory has no data of etcd; until it
has what the others have it has no vote, so one that never comes costs nothing. To have a node
back whose data was lost, remove it first.`,
		Example: `  graphvol cluster member add d https://10.1.0.4:7441`,
		Args:    args(cobra.ExactArgs(2), "a node's NAME and its URL"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return f.ask(func(c api.ClusterClient) error {
				res, err := c.AddMember(cmd.Context(), &api.AddMemberRequest{Name: given[0], Url: given[1]})
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(a.out, changedMembers{rowOfMember(res.GetAdded()), rowsOfMembers(res.GetMembers()), append([]string{}, res.GetNotes()...)})
				}
				fmt.Fprintf(a.out, "%s is added; start its agent, with this in its configuration:\n%s", given[0], etcdSection(res))
				return a.printNotes(res.GetNotes())
			})
		},
	}
}

// changedMembers is what --json tells of a change.
type changedMembers struct {
	Member  memberRow   `json:"member"`  // that was added or removed
	Members []memberRow `json:"members"` // all that there are now
	Notes   []string    `json:"notes"`
}

// etcdSection is what the configuration of the added node needs.
func etcdSection(res *api.AddMemberResponse) string {
	var members []string
	for _, m := range res.GetMembers() {
		if m.GetName() != "" {
			members = append(members, fmt.Sprintf("%s: %q", m.GetName(), m.GetUrl()))
		}
	}
	return fmt.Sprintf("  etcd:\n    listen: %s\n    members: {%s}\n", res.GetAdded().GetUrl(), strings.Join(members, ", "))
}

func (a *app) printNotes(notes []string) error {
	for _, note := range notes {
		if _, err := fmt.Fprintln(a.out, note); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) memberRemoveCmd(f *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME|URL",
		Short: "Take a member out for good",
		Long: `Takes the etcd of a node out of the members. Its agent, if it still runs, takes no part in the
cluster any more; its volumes stay mounted. What would leave etcd without a majority is refused,
and so is the last member.`,
		Example:           `  graphvol cluster member remove c`,
		Args:              args(cobra.ExactArgs(1), "one NAME or URL"),
		ValidArgsFunction: a.completeMember(f),
		RunE: func(cmd *cobra.Command, given []string) error {
			return f.ask(func(c api.ClusterClient) error {
				res, err := c.RemoveMember(cmd.Context(), &api.RemoveMemberRequest{Member: given[0]})
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(a.out, changedMembers{rowOfMember(res.GetRemoved()), rowsOfMembers(res.GetMembers()), append([]string{}, res.GetNotes()...)})
				}
				fmt.Fprintf(a.out, "%s at %s is removed\n", res.GetRemoved().GetName(), res.GetRemoved().GetUrl())
				return a.printNotes(res.GetNotes())
			})
		},
	}
}

// completeMember completes one argument to a member.
func (a *app) completeMember(f *clusterFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) (out []cobra.Completion, _ cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
		defer cancel()
		_ = f.ask(func(c api.ClusterClient) error { // no agent, no names
			res, err := c.ListMembers(ctx, &api.ListMembersRequest{})
			for _, m := range res.GetMembers() {
				if m.GetName() != "" {
					out = append(out, cobra.CompletionWithDesc(m.GetName(), m.GetState()))
				}
			}
			return err
		})
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}
