package import ArgumentParser
package import ComposefsBytes

/// A command that confines itself, or that parses nothing of others.
package protocol ConfinedCommand: ParsableCommand {
    /// Nil for a command that parses nothing of others.
    static var rights: CommandRights? { get }
}

/// A command for one image.
package protocol ImageCommand {
    /// The image as it was named on the command line.
    var namedImage: ByteString? { get }
    var global: GlobalOptions { get }
}
