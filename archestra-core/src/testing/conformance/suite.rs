//! The macros that make `all` and the exported test macro of a suite from one list of cases.

/// A suite whose cases take one store.
macro_rules! suite {
    ($d:tt $(#[$doc:meta])* $macro_name:ident, $module:ident, $trait_module:ident::$trait_name:ident, [$($case:ident),+ $(,)?]) => {
        /// Runs every case, each on a new one that `factory` makes, and panics where one fails.
        pub async fn all<F, Fut>(factory: F)
        where
            F: Fn() -> Fut + Send + Sync,
            Fut: std::future::Future<Output = std::sync::Arc<dyn $crate::$trait_module::$trait_name>> + Send,
        {
            $({
                let subject = factory().await;
                Box::pin($crate::testing::conformance::limited(stringify!($case), $case(&subject))).await;
            })+
        }

        $(#[$doc])*
        #[macro_export]
        macro_rules! $macro_name {
            ($d(#[$d attribute:meta])* $d name:ident, $d factory:expr) => {
                mod $d name {
                    #[allow(unused_imports, reason = "the factory names what the surrounding module has")]
                    use super::*;
                    $(
                        #[test]
                        $d(#[$d attribute])*
                        fn $case() {
                            $crate::testing::conformance::run(async {
                                let subject: ::std::sync::Arc<dyn $crate::$trait_module::$trait_name> = $d factory.await;
                                $crate::testing::conformance::$module::$case(&subject).await;
                            });
                        }
                    )+
                }
            };
        }
    };
}

/// A suite whose cases take two handles on one store.
macro_rules! pair_suite {
    ($d:tt $(#[$doc:meta])* $macro_name:ident, $module:ident, $trait_module:ident::$trait_name:ident, [$($case:ident),+ $(,)?]) => {
        /// Runs every case, each on two handles on a new store that `factory` makes, and panics where one fails.
        pub async fn all_pairs<F, Fut, S>(factory: F)
        where
            F: Fn() -> Fut + Send + Sync,
            Fut: std::future::Future<Output = (S, S)> + Send,
            S: Into<std::sync::Arc<dyn $crate::$trait_module::$trait_name>> + Send,
        {
            $({
                let (first, second) = factory().await;
                let (first, second) = (first.into(), second.into());
                Box::pin($crate::testing::conformance::limited(stringify!($case), $case(&first, &second))).await;
            })+
        }

        $(#[$doc])*
        #[macro_export]
        macro_rules! $macro_name {
            ($d(#[$d attribute:meta])* $d name:ident, $d factory:expr) => {
                mod $d name {
                    #[allow(unused_imports, reason = "the factory names what the surrounding module has")]
                    use super::*;
                    $(
                        #[test]
                        $d(#[$d attribute])*
                        fn $case() {
                            $crate::testing::conformance::run(async {
                                let (first, second) = $d factory.await;
                                let first: ::std::sync::Arc<dyn $crate::$trait_module::$trait_name> = first;
                                let second: ::std::sync::Arc<dyn $crate::$trait_module::$trait_name> = second;
                                $crate::testing::conformance::$module::$case(&first, &second).await;
                            });
                        }
                    )+
                }
            };
        }
    };
}

pub(super) use pair_suite;
pub(super) use suite;

/// A suite whose cases take a fixture that is defined in its module.
macro_rules! fixture_suite {
    ($d:tt $(#[$doc:meta])* $macro_name:ident, $module:ident, $fixture:ident, [$($case:ident),+ $(,)?]) => {
        /// Runs every case, each on a new fixture that `factory` makes, and panics where one fails.
        pub async fn all<F, Fut>(factory: F)
        where
            F: Fn() -> Fut + Send + Sync,
            Fut: std::future::Future<Output = $fixture> + Send,
        {
            $({
                let fixture = factory().await;
                Box::pin($crate::testing::conformance::limited(stringify!($case), $case(&fixture))).await;
                fixture.clean_up().await;
            })+
        }

        $(#[$doc])*
        #[macro_export]
        macro_rules! $macro_name {
            ($d(#[$d attribute:meta])* $d name:ident, $d factory:expr) => {
                mod $d name {
                    #[allow(unused_imports, reason = "the factory names what the surrounding module has")]
                    use super::*;
                    $(
                        #[test]
                        $d(#[$d attribute])*
                        fn $case() {
                            $crate::testing::conformance::run(async {
                                let fixture: $crate::testing::conformance::$module::$fixture = $d factory.await;
                                $crate::testing::conformance::$module::$case(&fixture).await;
                                fixture.clean_up().await;
                            });
                        }
                    )+
                }
            };
        }
    };
}
pub(super) use fixture_suite;

/// The cases that the catalog and the identity store have in common, as functions of one suite.
macro_rules! shared_cases {
    ($trait_name:ident) => {
        $crate::testing::conformance::suite::shared_cases! { @ $trait_name,
            /// The first version of a record is 1, and each write adds 1.
            versions_count_writes_from_one
            /// A commit has a greater revision than every commit before; an empty set returns the present one.
            revisions_grow_with_each_commit
            /// An expectation that does not hold is a conflict that names the record.
            stale_expectations_conflict
            /// What is only required is not written, and a requirement that does not hold is a conflict.
            what_is_required_stays_as_it_is
            /// What was removed is not found any more; removing it again succeeds.
            removed_records_are_gone
            /// A set whose last operation fails changes nothing.
            a_failing_operation_undoes_the_whole_set
            /// A set that names a record twice is refused.
            a_set_names_each_record_once
            /// A name is taken once, and passes on within a set: removals first, then writes in their order.
            names_are_unique_and_can_be_passed_on
            /// Of many parallel writers that expect the same version exactly one succeeds.
            one_of_many_writers_with_one_expectation_wins
            /// Of many parallel creators of the same record exactly one succeeds.
            one_of_many_creators_of_a_record_wins
            /// Of many parallel creators of the same name exactly one succeeds.
            one_of_many_creators_of_a_name_wins
            /// Parallel commits that have nothing to do with each other all succeed.
            unrelated_commits_all_succeed_at_once
            /// Lists are ordered by id.
            lists_are_ordered_by_id
            /// Following the cursors visits each record once, whatever the size of a page.
            cursors_lead_through_a_list
            /// Following the cursors visits each record that stays exactly once, while others come and go.
            cursors_hold_while_records_come_and_go
            /// A cursor that the store did not make is refused.
            foreign_cursors_are_refused
            /// A feed that was opened without a position begins with `Resync`, and then names changes.
            a_feed_without_a_position_begins_with_resync
            /// A feed that was opened with a position names every change since, in commit order.
            a_feed_names_all_changes_since_its_position
            /// A feed that was opened with a position of another store begins with `Resync`.
            a_feed_from_an_unknown_position_begins_with_resync
            /// A feed without changes goes on confirming.
            a_quiet_feed_goes_on_confirming
            /// A feed goes on confirming while somebody writes without a pause.
            a_feed_goes_on_confirming_while_somebody_writes
            /// A commit that failed is in no feed.
            a_feed_does_not_name_what_failed
            /// Any number of feeds may be open, and one that is not read holds up nobody.
            feeds_are_independent
            /// What a feed confirms it has delivered, also while many write at once.
            a_feed_loses_nothing_while_many_write
        }

        /// What one handle commits, another one reads and follows.
        pub async fn another_handle_sees_commits(first: &std::sync::Arc<dyn $trait_name>, second: &std::sync::Arc<dyn $trait_name>) {
            records::another_handle_sees_commits(first, second).await;
        }

        /// Of many parallel writers that expect the same version exactly one succeeds, whatever handle they use.
        pub async fn writers_on_both_handles_race(first: &std::sync::Arc<dyn $trait_name>, second: &std::sync::Arc<dyn $trait_name>) {
            records::writers_on_both_handles_race(first, second).await;
        }
    };
    (@ $trait_name:ident, $($(#[$doc:meta])* $case:ident)+) => {$(
        $(#[$doc])*
        pub async fn $case(store: &std::sync::Arc<dyn $trait_name>) {
            records::$case(store).await;
        }
    )+};
}
pub(super) use shared_cases;
