import ComposefsEROFS
import ComposefsFileTree
import Testing

/// Random trees and the fs-verity digests of the images that `mkcomposefs` 1.0.8, an independent writer, made from their dumps
/// (`--min-version=N --max-version=N --from-file`).
@Suite struct PinnedRandomTrees {
    static let pinned: [(seed: UInt64, v0: String, v1: String)] = [
        (
            0,
            "707894923b40e2f9fa9ea62a083dabeedfb855e0015de633e227d11e43291d27",
            "be023e543577d6f8320decc1336bd97bb5d957888ce63ba755ea0bc2e78aee1c"
        ),
        (
            1,
            "717afb63a0c0dc82badf3b3d1b92de888397beab7ecb0cbb3bc72ea7474cb8af",
            "488de3159a1b78bab3ed1289b7698be78987012e26c11ac2bbb68760ebd2403c"
        ),
        (
            2,
            "20749424da9b41a265b9989d7140cba6dc65272603114571399f6f1b4259eb47",
            "a13f335732092653fb4f59c7e1040edaf6fc96059ea46e03f4955ab5a9f0fc1e"
        ),
        (
            3,
            "6a3a559530776c547694c14a2962ab44c249396019d33eb0abcf013a47b38385",
            "848dbd6e20dbafee3e3d2fdfc8381cbfe94ab26f0d8556ac4c79db4d8100c06f"
        ),
        (
            4,
            "e4a0950930ded3c62e6ad3918eb1f4a81a9bfab8cdb99577eb0ca6677c8e4f92",
            "9c3aadd1dfae4b302e54b108e49d47e2277185c967295feba9e49dd22f2b1552"
        ),
        (
            5,
            "4b2703ea7ad369f0f6ae67582b23cb0df2d87bc530beed31ab6701aade661706",
            "cf530fa84b6cd15d02f4fa5413c5ebabd4f9e3e035cf4193509afee5e299f20a"
        ),
        (
            6,
            "a8510e5886ba3916c4df2773ff8e15d376b02f56156ea0aa0186700a49497df4",
            "20cfc1f83a1bf07d65b4752892db1cd468fa06c66dcbf1cc37332695b29c01fc"
        ),
        (
            7,
            "675b3a7248782ea856ccbe32250d0b56f76eb39a92abf75f2c128cc6825f4b37",
            "243d50bb71c186e3e1fc4a2040411c531568c342377d89c81a27a1dcdd227e9c"
        ),
        (
            8,
            "746f5bf6c668fc6e358b08b96997e23c38119f81b9abc8adfcf85b9967ebbc25",
            "a3ab8ae3b9da9dec221faa36eb7f406d7daf0b8abfa76c9249122a0d8f2460b1"
        ),
        (
            9,
            "4911abbbc34747520dcb0ebce878783c4f3ba69482aa06e657741bbf71c4e88d",
            "d62eb3a478ab761dba531bea34843e9bc144e4c1a48650144eb53805c470c516"
        ),
        (
            10,
            "6cb200b39a2123ad19e73df573e913fd4c4f9004bc1382d6485b92794e0663ad",
            "b3cf9b246e89ff93c85ec7d13dd81730178f77fb59ed629f8b1f47d1177f8ae5"
        ),
        (
            11,
            "c711e2fe1ce524176e07e3770a08129d21394eebbca029f8e7b3bea8bca977c4",
            "7f4ab8c9bfa9e0784e56b16e53a6d40737da3c0eda55b330690863408f7db72b"
        ),
        (
            12,
            "6bce82d62640eeeb21d59f9ab0342ed12c78555583bca6bdd4a3f36d2041af5f",
            "cfc5e13c449e7dd270029edbecc07cfb560b64ac18384fb6444876b0fb75555e"
        ),
        (
            13,
            "1cd18a5c4b4416c07db4498697bb8c343b91e67365b6faacc6e7baf9bd42ccf3",
            "02fce649522c91781f051f2fb1dadcdd80c9b91bffe73bf23f48f6f7bf987ece"
        ),
        (
            14,
            "f71b6df510ae835cd1dfe33ddbaee74048be1da3404d4f11d093bce5d980e107",
            "5990b7816272158a4013144eaaf3c9b14769b7b658dd7a1b612a5cf21dffe4c7"
        ),
        (
            15,
            "d0a195430e5eeab1fc6dc26b3eb23e64df1bbf8f920f5871998b6a3a8e5bd0c1",
            "5af406ddeae3e287bc7181467f1bf5a36688034dea7e59b5e2660a45684b00b4"
        ),
    ]

    @Test(arguments: pinned)
    func sameAsMkcomposefs(seed: UInt64, v0: String, v1: String) throws {
        let tree = try RandomTree(seed: seed, isPortable: true).tree
        #expect(try imageID(tree, .v0) == v0)
        #expect(try imageID(tree, .v1) == v1)
    }
}
