import ArgumentParser
import ComposefsOCI

struct Untag: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Take a name away. What only it kept goes with the next gc.")

    @Argument(help: "The name as it is stored.")
    var name: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        try global.openStore().images.untag(name)
        if json { return try Output.print(["removed": [.string(name.jsonText)]]) }
        try Output.print("Removed tag \(Output.printable(name))")
    }
}
