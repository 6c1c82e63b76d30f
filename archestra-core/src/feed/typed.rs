//! Records as their types, on top of stores that hand out all kinds of them.

/// Makes the trait of one store. Where it is used, the names of what all stores share must be in scope.
macro_rules! typed {
    ($(#[$doc:meta])* $ext:ident: $store:ident { $document:ident, $lookup:ident, $query:ident }) => {
        $(#[$doc])*
        pub trait $ext: $store {
            /// Reads one record as its type.
            fn get_one<T: $document>(&self, id: T::Id) -> impl Future<Output = Result<Versioned<T>>> + Send {
                async move {
                    let Versioned { version, value } = self.get(T::key(id)).await?;
                    let value = T::from_record(value).ok_or_else(|| crate::Error::not_found(T::KIND.label(), id))?;
                    Ok(Versioned { version, value })
                }
            }

            /// Finds one record as its type.
            fn find_one<T: $document>(
                &self,
                lookup: $lookup,
            ) -> impl Future<Output = Result<Option<Versioned<T>>>> + Send {
                async move {
                    let found = self.find(&lookup).await?;
                    Ok(found.and_then(|Versioned { version, value }| {
                        T::from_record(value).map(|value| Versioned { version, value })
                    }))
                }
            }

            /// Reads one page as its type, to show it: what cannot be read is left out and logged.
            fn list_page<T: $document>(
                &self,
                query: $query,
                page: PageRequest,
            ) -> impl Future<Output = Result<Page<Versioned<T>>>> + Send {
                async move {
                    let Page { items, next } = self.list_each(&query, &page).await?;
                    let shown = |item| match item {
                        Ok(Versioned { version, value }) => {
                            T::from_record(value).map(|value| Versioned { version, value })
                        }
                        Err(unreadable) => {
                            tracing::error!(%unreadable, "a list is shown without a record");
                            None
                        }
                    };
                    let items = items.into_iter().filter_map(shown).collect();
                    Ok(Page { items, next })
                }
            }

            /// Reads all pages, to act on them: fails where anything in them cannot be read.
            fn list_all<T: $document>(&self, query: $query) -> impl Future<Output = Result<Vec<Versioned<T>>>> + Send {
                async move {
                    let mut all = Vec::new();
                    let mut request = PageRequest { limit: crate::feed::MAX_PAGE, cursor: None };
                    loop {
                        let page = self.list(&query, &request).await?;
                        all.extend(page.items.into_iter().filter_map(|Versioned { version, value }| {
                            T::from_record(value).map(|value| Versioned { version, value })
                        }));
                        match page.next {
                            Some(cursor) => request.cursor = Some(cursor),
                            None => return Ok(all),
                        }
                    }
                }
            }
        }

        impl<S: $store + ?Sized> $ext for S {}
    };
}
pub(crate) use typed;
