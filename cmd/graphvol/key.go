package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"graphvol/agent"
)

func (a *app) keyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Manage the keys of encrypted copies",
		Long: `An encrypted copy has one repository key, which any of its keys opens. The first is made
with the copy, and is in STATE/keys. Without a key nobody can read the copy: keep the
recovery text of one elsewhere, on paper.

A key that is removed opens the copy no more, but whoever had it may have read the
repository key before. docs/security.md has more.`,
		Example: `  graphvol key recovery /mnt/graph | lp
  graphvol key add /mnt/graph vault --passphrase-file /run/secrets/passphrase
  graphvol key list /mnt/graph`,
		Args: func(cmd *cobra.Command, args []string) error {
			return usageError{errors.New("choose one of the commands below key")}
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	var name string
	cmd.PersistentFlags().StringVar(&name, "copy", "", "of this copy, as graphvol status names it (default: the only encrypted one)")
	cmd.AddCommand(a.keyListCmd(&name), a.keyRecoveryCmd(&name), a.keyAddCmd(&name), a.keyRemoveCmd(&name), a.keyRestoreCmd(&name))
	return cmd
}

func (a *app) keyListCmd(name *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "list VOLUME",
		Short:             "List the keys that open a copy",
		Example:           `  graphvol key list /mnt/graph`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := agent.OpenKeys(cmd.Context(), args[0], *name, a.err)
			if err != nil {
				return err
			}
			list, err := k.List(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, struct {
					Copy string   `json:"copy"`
					Keys []string `json:"keys"`
				}{k.Copy, append([]string{}, list...)})
			}
			for _, key := range list {
				fmt.Fprintln(a.out, key)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) keyRecoveryCmd(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "recovery VOLUME",
		Short: "Print the recovery text of a copy's key",
		Long: `Prints a text that is all that is needed, beside the copy itself, to read it: graphvol
attach takes it as --key, also typed from paper. Who has it can read the copy.`,
		Example:           `  graphvol key recovery /mnt/graph | lp`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := agent.OpenKeys(cmd.Context(), args[0], *name, a.err)
			if err != nil {
				return err
			}
			text, err := k.Recovery()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(a.out, text)
			return err
		},
	}
}

func (a *app) keyAddCmd(name *string) *cobra.Command {
	var public []string
	var passphraseFile string
	cmd := &cobra.Command{
		Use:   "add VOLUME NAME",
		Short: "Let another key open a copy",
		Long: `Lets a passphrase, or the secret keys of age's public keys, open a copy. It is stored on
the copy under NAME, wrapped so that only they can use it.`,
		Example: `  graphvol key add /mnt/graph operators --public age1… --public age1…
  graphvol key add /mnt/graph vault --passphrase-file /run/secrets/passphrase`,
		Args:              args(cobra.ExactArgs(2), "VOLUME and NAME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(public) > 0) == (passphraseFile != "") {
				return usageError{errors.New("name either public keys (--public) or a file with a passphrase (--passphrase-file)")}
			}
			k, err := agent.OpenKeys(cmd.Context(), args[0], *name, a.err)
			if err != nil {
				return err
			}
			if passphraseFile == "" {
				err = k.AddPublic(cmd.Context(), args[1], public)
			} else {
				var p string
				if p, err = agent.ReadPassphrase(passphraseFile); err == nil {
					err = k.AddPassphrase(cmd.Context(), args[1], p)
				}
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "added key %s to copy %s\n", args[1], k.Copy)
			return err
		},
	}
	cmd.Flags().StringArrayVar(&public, "public", nil, "a public key of age; repeat it for more")
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "a file with the passphrase in its first line")
	return cmd
}

func (a *app) keyRemoveCmd(name *string) *cobra.Command {
	return &cobra.Command{
		Use:               "remove VOLUME NAME",
		Short:             "Let a key open a copy no more",
		Example:           `  graphvol key remove /mnt/graph operators`,
		Args:              args(cobra.ExactArgs(2), "VOLUME and NAME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := agent.OpenKeys(cmd.Context(), args[0], *name, a.err)
			if err == nil {
				err = k.Remove(cmd.Context(), args[1])
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "removed key %s from copy %s\n", args[1], k.Copy)
			return err
		},
	}
}

func (a *app) keyRestoreCmd(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "restore VOLUME FILE",
		Short: "Put the key file of a copy back",
		Long: `Makes the key file of a copy in the volume's state directory anew, from another copy of it
or from its recovery text.`,
		Example:           `  graphvol key restore /mnt/graph recovery.txt`,
		Args:              args(cobra.ExactArgs(2), "VOLUME and FILE"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := agent.OpenKeys(cmd.Context(), args[0], *name, a.err)
			if err == nil {
				err = agent.PutKey(args[1], k.State, k.Copy)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "wrote %s\n", k.Path())
			return err
		},
	}
}
