// ServiceCommands: the commands that serve other programs.
//
// - `VarlinkCommand` makes or takes over a socket, and runs `VarlinkServer`; `ActivationSocket` is what systemd passes.

package import ComposefsCommandSupport

extension VarlinkCommand: ConfinedCommand { package static var rights: CommandRights? { serving } }
